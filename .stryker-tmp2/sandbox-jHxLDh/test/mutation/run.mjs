/**
 * Mutation testing: `npm run mutate`, or `npm run mutate -- storage` for one of the groups below. It takes hours.
 *
 * Each part of the library is mutated under the tests that are about it, without sockets where they are not its subject.
 * The survivors are printed; those that stay are explained in SURVIVORS.md.
 */
// @ts-nocheck

import { Stryker } from "@stryker-mutator/core"
import { availableParallelism } from "node:os"
import { relative } from "node:path"

const groups = {
  values: {
    mutate: ["AccessToken", "ClientAuthentication", "Grant", "TokenError", "internal/digest"],
    tests: ["AccessToken", "ClientAuthentication", "Grant", "TokenError"]
  },
  answers: {
    mutate: ["internal/challenge", "internal/scrub", "internal/tokenAnswer", "internal/tokenResponse"],
    tests: ["challenge", "scrub", "tokenAnswer", "tokenResponse", "TokenEndpoint"]
  },
  endpoint: { mutate: ["TokenEndpoint"], tests: ["Alf", "TokenEndpoint"] },
  states: {
    mutate: ["internal/refusals", "internal/tokenState"],
    tests: ["properties/refusals", "properties/tokenState"]
  },
  service: {
    mutate: ["TokenMetrics", "TokenService", "internal/guardedStorage", "internal/log", "internal/within"],
    tests: ["TokenService"]
  },
  client: {
    mutate: [
      "Alf",
      "AuthorizedHttpClient",
      "internal/answer",
      "internal/configuration",
      "internal/httpClientError",
      "internal/origins"
    ],
    tests: ["Alf", "AuthorizedHttpClient", "answer", "secrets"]
  },
  storage: {
    mutate: ["TokenStorage", "internal/lease", "internal/leaseRecord", "internal/storageFiles", "internal/storageSeal"],
    tests: ["TokenStorage", "TokenStorage.conformance"]
  },
  servers: {
    mutate: ["TokenStorage/Memcached", "TokenStorage/Redis"],
    tests: ["TokenStorage.Memcached", "TokenStorage.Redis"]
  },
  node: {
    mutate: ["node/**/*"],
    tests: ["node/AuthorizationCodeGrant", "node/Browser", "node/ImplicitGrant", "node/loopback"]
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
