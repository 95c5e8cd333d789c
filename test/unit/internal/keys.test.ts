import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import { importJWK } from "jose"
import { createPublicKey, generateKeyPairSync, verify } from "node:crypto"
import { readCertificate, thumbprintFor } from "../../../src/internal/signing/certificate.ts"
import { importKey } from "../../../src/internal/signing/keys.ts"
import { makeCertificate } from "../../support/certificates.ts"

const joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

/** Keys and signatures that the specifications give. */
const vectors = [
  {
    name: "RS256 of RFC 7515 A.2",
    isDeterministic: true,
    subtle: { name: "RSASSA-PKCS1-v1_5" },
    jwk: {
      kty: "RSA",
      n: "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS" +
        "-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2C" +
        "apHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb" +
        "54h4FRWyuXpoQ",
      e: "AQAB",
      d: "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO" +
        "-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBju" +
        "dU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p" +
        "1DhOVRuOopznQ",
      p: "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2K" +
        "KDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
      q: "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_H" +
        "lB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
      dp:
        "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vm" +
        "AktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
      dq:
        "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9c" +
        "jz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
      qi:
        "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnb" +
        "JtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"
    },
    jws:
      `eyJhbGciOiJSUzI1NiJ9.${joe}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5Y` +
      "Kt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0" +
      "GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AX" +
      "LIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
  },
  {
    name: "ES256 of RFC 7515 A.3",
    isDeterministic: false,
    subtle: { name: "ECDSA", hash: "SHA-256" },
    jwk: {
      kty: "EC",
      crv: "P-256",
      x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
      y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
      d: "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
    },
    jws:
      `eyJhbGciOiJFUzI1NiJ9.${joe}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q`
  },
  {
    name: "ES512 of RFC 7515 A.4",
    isDeterministic: false,
    subtle: { name: "ECDSA", hash: "SHA-512" },
    jwk: {
      kty: "EC",
      crv: "P-521",
      x: "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
      y: "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
      d: "AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"
    },
    jws:
      "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34X" +
      "O0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
  },
  {
    name: "EdDSA of RFC 8037 A",
    isDeterministic: true,
    subtle: { name: "Ed25519" },
    jwk: {
      kty: "OKP",
      crv: "Ed25519",
      d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
      x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    },
    jws: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
      "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
  }
] as const

const bytes = (base64url: string) => Uint8Array.from(Buffer.from(base64url, "base64url"))

describe("keys of the specifications", () => {
  for (const { isDeterministic, jwk, jws, name, subtle } of vectors) {
    const [header = "", payload = "", signature = ""] = jws.split(".")
    const input = Uint8Array.from(Buffer.from(`${header}.${payload}`))
    const { alg } = JSON.parse(Buffer.from(header, "base64url").toString())

    it.effect(`${name}: the key is read, and makes the signature`, () =>
      Effect.gen(function*() {
        const { algorithm, key, publicJwk } = yield* importKey(JSON.stringify(jwk), undefined)
        assert.strictEqual(algorithm, alg)
        assert.isUndefined(publicJwk.d)
        const publicKey = yield* Effect.promise(() => importJWK({ ...publicJwk, ext: true }, alg))
        if (publicKey instanceof Uint8Array) return assert.fail("a symmetric key")
        const verifies = (made: Uint8Array<ArrayBuffer>) =>
          Effect.promise(() => crypto.subtle.verify(subtle, publicKey, made, input))
        assert.isTrue(yield* verifies(bytes(signature)))
        const made = new Uint8Array(yield* Effect.promise(() => crypto.subtle.sign(subtle, key, input)))
        if (isDeterministic) assert.strictEqual(Buffer.from(made).toString("base64url"), signature)
        else assert.isTrue(yield* verifies(made))
      }))

    it.effect(`${name}: Node's own crypto verifies an assertion of the key`, () =>
      Effect.gen(function*() {
        const assertion = Redacted.value(
          yield* ClientAssertion.sign({
            key: Redacted.make(JSON.stringify(jwk)),
            issuer: "joe",
            subject: "joe",
            audience: "https://auth.test"
          })
        )
        const [header = "", payload = "", signature = ""] = assertion.split(".")
        const hash = { RS256: "sha256", ES256: "sha256", ES512: "sha512", EdDSA: undefined }[String(alg)]
        const { d: _, ...publicMembers } = jwk
        const key = createPublicKey({ key: publicMembers, format: "jwk" })
        assert.isTrue(
          verify(hash, Buffer.from(`${header}.${payload}`), { key, dsaEncoding: "ieee-p1363" }, bytes(signature))
        )
      }))
  }
})

describe("importKey", () => {
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey
  const pem = ec.export({ type: "pkcs8", format: "pem" }).toString()

  it.effect.each(
    [
      ["white space around it", ` \n${pem}\n\n`],
      ["a comment before it", `Bag Attributes\n    friendlyName: client\n${pem}`],
      ["its certificate before it", makeCertificate("client").certificate + pem],
      ["its certificate after it", pem + makeCertificate("client").certificate],
      ["the line breaks of Windows", pem.replaceAll("\n", "\r\n")],
      ["line breaks that a variable holds as \\n", pem.replaceAll("\n", "\\n")],
      ["line breaks that a variable holds as \\r\\n", pem.replaceAll("\n", "\\r\\n")]
    ] as const
  )(
    "reads PEM with %s",
    ([_, text]) => Effect.map(importKey(text, undefined), ({ algorithm }) => assert.strictEqual(algorithm, "ES256"))
  )

  const rsa = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey

  it.effect.each(
    [
      [
        "a key that does not sign",
        generateKeyPairSync("x25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
        "neither RSA, nor EC"
      ],
      ["a set of keys", JSON.stringify({ keys: [ec.export({ format: "jwk" })] }), "one key of the set"],
      [
        "an RSA key that is too short, as PEM",
        rsa.export({ type: "pkcs8", format: "pem" }).toString(),
        "shorter than 2048"
      ],
      ["an RSA key that is too short, as JWK", JSON.stringify(rsa.export({ format: "jwk" })), "shorter than 2048"]
    ] as const
  )(
    "says what is wrong with %s",
    ([_, text, words]) =>
      Effect.map(Effect.flip(importKey(text, undefined)), ({ description }) => assert.include(description, words))
  )
})

describe("readCertificate", () => {
  const keys = [
    ["P-256", generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey],
    ["P-384", generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey],
    ["P-521", generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey],
    ["Ed25519", generateKeyPairSync("ed25519").privateKey],
    ["RSA", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey]
  ] as const
  const authority = makeCertificate("authority")

  it.effect.each(keys)(
    "reads the certificate of a key on %s, also the first one of a chain",
    ([_, key]) =>
      Effect.gen(function*() {
        const made = makeCertificate("client", { key, issuer: authority })
        const signingKey = yield* importKey(made.key, undefined)
        const thumbprint = yield* thumbprintFor(made.certificate, signingKey)
        assert.strictEqual(yield* thumbprintFor(made.certificate + authority.certificate, signingKey), thumbprint)
        assert.strictEqual(
          yield* thumbprintFor(made.certificate.replaceAll("\n", "\\n"), signingKey),
          thumbprint
        )
      })
  )

  const der = makeCertificate("client").certificate.split("\n")[1] ?? ""
  const wrap = (body: string) => `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`

  it.effect.each(
    [
      ["nothing", ""],
      ["no PEM", "certificate"],
      ["white space", wrap(" \n ")],
      ["any base64", wrap(Buffer.from("certificate").toString("base64"))],
      ["half a certificate", wrap(der.slice(0, 200))],
      ["a key", makeCertificate("client").key]
    ] as const
  )(
    "is an error for %s",
    ([_, text]) =>
      Effect.map(Effect.flip(readCertificate(text)), ({ description }) => assert.match(description, /^the certificate/))
  )

  it.effect("is an error where the certificate belongs to another key", () =>
    Effect.gen(function*() {
      const key = yield* importKey(makeCertificate("client").key, undefined)
      const { description } = yield* Effect.flip(thumbprintFor(makeCertificate("client").certificate, key))
      assert.strictEqual(description, "the certificate belongs to another key")
    }))
})
