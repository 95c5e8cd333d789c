/** X.509 certificates (RFC 5280) of a name and of 127.0.0.1, made when a test runs. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate
} from "node:crypto"

export interface Certificate {
  readonly certificate: string
  /** PKCS#8 PEM. */
  readonly key: string
}

export interface Options {
  /** Defaults to a new P-256 key. */
  readonly key?: KeyObject | undefined
  /** Defaults to the certificate itself. */
  readonly issuer?: Certificate | undefined
}

/** A certificate for a name, of an EC or RSA key. */
export const makeCertificate = (name: string, options: Options = {}): Certificate => {
  const key = options.key ?? generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey
  const issuerKey = options.issuer === undefined ? key : createPrivateKey(options.issuer.key)
  const issuerName = options.issuer === undefined
    ? name
    : /CN=(.*)/.exec(new X509Certificate(options.issuer.certificate).subject)?.[1] ?? ""
  const algorithm = issuerKey.asymmetricKeyType === "rsa"
    ? sequence(oid("2a864886f70d01010b"), Buffer.of(5, 0))
    : sequence(oid("2a8648ce3d040302"))
  const body = sequence(
    element(0xa0, integer(Buffer.of(2))),
    integer(Buffer.of(1)),
    algorithm,
    nameOf(issuerName),
    sequence(time("20200101000000Z"), time("20991231235959Z")),
    nameOf(name),
    createPublicKey(key).export({ type: "spki", format: "der" }),
    element(
      0xa3,
      sequence(
        // any certificate here may sign others
        extension("551d13", sequence(Buffer.of(1, 1, 0xff))),
        extension("551d11", sequence(element(0x82, Buffer.from(name)), element(0x87, Buffer.of(127, 0, 0, 1))))
      )
    )
  )
  const der = sequence(body, algorithm, element(3, Buffer.of(0), sign("sha256", body, issuerKey)))
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${der.toString("base64")}\n-----END CERTIFICATE-----\n`,
    key: key.export({ type: "pkcs8", format: "pem" }).toString()
  }
}

const element = (tag: number, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const content = Buffer.concat(parts)
  const length = content.length < 0x80
    ? Buffer.of(content.length)
    : Buffer.of(0x82, content.length >> 8, content.length & 0xff)
  return Buffer.concat([Buffer.of(tag), length, content])
}

const sequence = (...parts: ReadonlyArray<Buffer>): Buffer => element(0x30, ...parts)
const integer = (value: Buffer): Buffer => element(2, value)
const oid = (hex: string): Buffer => element(6, Buffer.from(hex, "hex"))
const time = (text: string): Buffer => element(0x18, Buffer.from(text))
const extension = (id: string, value: Buffer): Buffer => sequence(oid(id), element(4, value))

const nameOf = (name: string): Buffer =>
  sequence(element(0x31, sequence(oid("550403"), element(12, Buffer.from(name)))))
