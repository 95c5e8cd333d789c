/** The ways in which a token is shown to an API: what holds for one of them holds for all, in the same tests. */
import { HttpClient, type HttpClientRequest } from "@effect/platform"
import { describe } from "@effect/vitest"
import { Effect } from "effect"
import type { AuthorizedHttpClient } from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { boundTokenOf, proofOf } from "./proofs.ts"
import { watchWebCrypto } from "./webCrypto.ts"

export interface Presentation {
  /** What a token endpoint calls the tokens, and what stands before them in `Authorization`. */
  readonly scheme: "Bearer" | "DPoP"
  /** The options that ask for it. */
  readonly options: Pick<AuthorizedHttpClient.Options, "dpop">
  /** A client that dies where a token is not shown as it should be. */
  readonly checked: <E, R>(client: HttpClient.HttpClient.With<E, R>) => HttpClient.HttpClient.With<E, R>
  /** How many requests a storm has: proofs are not for nothing. */
  readonly storm: number
}

export const bearer: Presentation = { scheme: "Bearer", options: {}, checked: (client) => client, storm: 1_000 }

const dpop: Presentation = {
  scheme: "DPoP",
  options: { dpop: DPoP.generate() },
  checked: (client) => {
    const seen = new Set<string>()
    return HttpClient.transform(
      client,
      (response, request) => Effect.zipRight(Effect.sync(() => checkProof(request, seen)), response)
    )
  },
  storm: 200
}

/** Runs tests for each presentation. */
export const overEach = (title: string, tests: (presentation: Presentation) => void) => {
  describe(`${title}, over Bearer`, () => {
    tests(bearer)
  })
  describe(`${title}, over DPoP`, () => {
    watchWebCrypto()
    tests(dpop)
  })
}

/** A token has a proof of its own (RFC 9449 §4.3); besides, only a token request has one. */
const checkProof = (request: HttpClientRequest.HttpClientRequest, seen: Set<string>) => {
  const { headers, method, url } = request
  const token = boundTokenOf(request)
  const proof = headers["dpop"]
  if (token === undefined && proof === undefined) return
  if (proof === undefined) throw new Error(`${method} ${url}: a token without a proof`)
  if (token === undefined && method !== "POST") throw new Error(`${method} ${url}: a proof without a token`)
  const { jti } = proofOf(request, token)
  if (seen.has(jti)) throw new Error(`${method} ${url}: a proof is used twice`)
  seen.add(jti)
}
