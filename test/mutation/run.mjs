/**
 * Mutation testing: `npm run mutate`, or `npm run mutate -- storage` for one of the groups below. It takes hours.
 *
 * Each part of the library is mutated under the tests that are about it, without sockets where they are not its subject.
 * The survivors are printed; those that stay are explained in SURVIVORS.md.
 */
import { Stryker } from "@stryker-mutator/core"
import { availableParallelism } from "node:os"
import { relative } from "node:path"

const groups = {
  values: {
    mutate: ["AccessToken", "ClientAuthentication", "Grant", "TokenError", "internal/digest", "internal/grantParams", "internal/token/refresh"],
    tests: ["unit/AccessToken", "unit/ClientAuthentication", "unit/Grant", "unit/TokenError"]
  },
  responses: {
    mutate: [
      "internal/http/challenges",
      "internal/endpoint/redact",
      "internal/endpoint/decodeToken",
      "internal/endpoint/readTokenResponse"
    ],
    tests: ["unit/internal/challenges", "unit/internal/redact", "unit/internal/decodeToken", "unit/internal/readTokenResponse", "unit/TokenEndpoint"]
  },
  endpoint: {
    mutate: ["AuthorizationServer", "TokenEndpoint", "internal/endpoint/authenticatedRequest", "internal/endpoint/discovery"],
    tests: ["unit/Alf", "unit/AuthorizationServer", "unit/TokenEndpoint"]
  },
  states: {
    mutate: ["internal/http/rejections", "internal/http/on401", "internal/token/state"],
    tests: ["behaviour/properties/rejections", "behaviour/properties/on401", "behaviour/properties/tokenState"]
  },
  service: {
    mutate: [
      "TokenMetrics",
      "TokenService",
      "internal/token/guardedStorage",
      "internal/token/sharedFetch",
      "internal/token/running",
      "internal/token/waiting",
      "internal/log",
      "internal/timeout"
    ],
    tests: ["unit/TokenService", "behaviour/flights"]
  },
  client: {
    mutate: [
      "Alf",
      "AuthorizedHttpClient",
      "internal/http/middleware",
      "internal/http/conceal",
      "internal/http/redactedResponse",
      "internal/options",
      "internal/http/httpClientError",
      "internal/http/origins"
    ],
    tests: ["unit/Alf", "unit/AuthorizedHttpClient", "unit/internal/conceal", "unit/internal/redactedResponse", "behaviour/secrets"]
  },
  keys: {
    mutate: ["ClientAssertion", "DPoP", "internal/signing/certificate", "internal/signing/jwt", "internal/signing/keys"],
    tests: ["unit/ClientAssertion", "unit/internal/keys", "behaviour/dpop"]
  },
  resources: {
    mutate: ["DeviceCodeGrant", "TokenPool", "ProtectedResource", "ClientRegistration", "internal/http/toFetch"],
    tests: ["unit/DeviceCodeGrant", "unit/TokenPool", "unit/ProtectedResource", "unit/internal/toFetch"]
  },
  storage: {
    mutate: [
      "TokenStorage",
      "internal/storage/lease",
      "internal/storage/leaseRecord",
      "internal/storage/files",
      "internal/storage/fileChecks",
      "internal/storage/aesGcm"
    ],
    tests: ["unit/TokenStorage", "integration/TokenStorage.conformance"]
  },
  servers: {
    mutate: ["TokenStorage/Memcached", "TokenStorage/Redis", "TokenStorage/Sql"],
    tests: ["integration/TokenStorage.Memcached", "integration/TokenStorage.Redis", "integration/TokenStorage.Sql"]
  },
  node: {
    mutate: ["node/**/*"],
    tests: ["AuthorizationCodeGrant", "Browser", "ImplicitGrant", "loopback", "authorizationServer"].map(
      (name) => `integration/node/${name}`
    )
  }
}

const detected = ["Killed", "Timeout"]
const undetected = ["Survived", "NoCoverage"]
const total = { detected: 0, undetected: 0, static: 0 }

const chosen = process.argv.slice(2)
for (const [name, { mutate, tests }] of Object.entries(groups)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  const mutants = await new Stryker({
    mutate: mutate.map((file) => `src/${file}.ts`),
    testFiles: tests.map((file) => `test/${file}.test.ts`),
    testRunner: "vitest",
    plugins: ["@stryker-mutator/vitest-runner"],
    coverageAnalysis: "perTest",
    // what runs only while its module loads would need all tests, for each mutant
    ignoreStatic: true,
    // TypeScript 7 has no API that would rewrite one
    tsconfigFile: "none.json",
    ignorePatterns: ["benchmark", "dist"],
    reporters: ["progress-append-only"],
    // a test under TestClock spends most of its time on waiting
    concurrency: 3 * availableParallelism(),
    timeoutMS: 40_000,
    dryRunTimeoutMinutes: 15
  }).runMutationTest()

  const of = (statuses) => mutants.filter(({ status }) => statuses.includes(status))
  for (const { fileName, location, mutatorName, replacement, status } of of(undetected)) {
    const { column, line } = location.start
    const text = replacement.length > 100 ? `${replacement.slice(0, 100)}…` : replacement
    console.log(`${status} ${relative(process.cwd(), fileName)}:${line}:${column} ${mutatorName} → ${text.replaceAll(/\s+/g, " ")}`)
  }
  const counts = { detected: of(detected).length, undetected: of(undetected).length, static: of(["Ignored"]).length }
  console.log(name, report(counts))
  for (const key of Object.keys(total)) total[key] += counts[key]
}
console.log("all", report(total))
process.exitCode = share(total) < 0.9 ? 1 : 0

function share({ detected, undetected }) {
  return detected / (detected + undetected)
}

function report(counts) {
  const { detected, undetected } = counts
  return `${detected} of ${detected + undetected} killed (${(100 * share(counts)).toFixed(1)} %), ${counts.static} static`
}
