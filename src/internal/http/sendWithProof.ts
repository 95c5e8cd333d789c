/** Sends requests with a proof of possession, as DPoP wants it. */
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"
import { type TokenError, TokenRequestError } from "../../TokenError.ts"
import { discardBody, isReplayable } from "./body.ts"
import { responseIn } from "./httpClientError.ts"
import { withoutQuery } from "./origins.ts"
import type { DPoP } from "./presentation.ts"

type Request = HttpClientRequest.HttpClientRequest
type Response = HttpClientResponse.HttpClientResponse

/**
 * Sends a request with a proof. A response that asks for another nonce gets the same token with a new proof, once; with the
 * replay after a 401 that is four sends at most. Each proof is added to `proofs`: an error may echo it.
 */
export const sendWithProof = <E, R>(client: HttpClient.HttpClient.With<E, R>, dpop: DPoP) => {
  const once = (
    request: Request,
    token: AccessToken,
    nonce: Option.Option<string>,
    proofs: Array<string>
  ): Effect.Effect<Proved<E>, TokenRequestError, R> =>
    pipe(
      dpop.prove(request, { token: Option.some(token), nonce }),
      Effect.mapError((description) =>
        new TokenRequestError({
          reason: "Secret",
          endpoint: withoutQuery(request.url),
          attempts: 1,
          description
        })
      ),
      Effect.flatMap((proved) => {
        proofs.push(...Option.toArray(Option.fromNullable(proved.headers["dpop"])))
        return Effect.flatMap(Effect.exit(client.execute(proved)), (exit): Effect.Effect<Proved<E>> => {
          const response = Exit.isSuccess(exit) ? exit.value : responseIn(exit.cause)
          if (response === undefined) return Effect.succeed({ exit, again: Option.none() })
          return Effect.map(
            dpop.learn(proved, response, Option.none()),
            (repeat) => ({ exit, again: Option.map(repeat, ({ nonce }) => ({ response, nonce })) })
          )
        })
      })
    )
  return (request: Request, token: AccessToken, proofs: Array<string>): Effect.Effect<Response, E | TokenError, R> =>
    Effect.flatMap(
      once(request, token, Option.none(), proofs),
      ({ again, exit }): Effect.Effect<Response, E | TokenError, R> =>
        Option.isNone(again) || !isReplayable(request.body)
          ? exit
          : Effect.zipRight(
            discardBody(again.value.response),
            Effect.flatMap(once(request, token, again.value.nonce, proofs), ({ exit }) => exit)
          )
    )
}

/** How a request with a proof ended, and the response that asks for another proof. */
interface Proved<E> {
  readonly exit: Exit.Exit<Response, E>
  readonly again: Option.Option<{ readonly response: Response; readonly nonce: Option.Option<string> }>
}
