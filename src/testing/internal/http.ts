/** How the test server reads requests and writes responses. */
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Stream from "effect/Stream"

/** What the server looks at in a request. */
export interface Received {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface Credentials {
  readonly id: string
  readonly secret: string | undefined
}

/** Who the client says it is (RFC 6749 §2.3): Basic can be read in two ways, form-encoded and as it is. */
export const credentials = (authorization: string | undefined, form: URLSearchParams): ReadonlyArray<Credentials> => {
  if (authorization === undefined) {
    return [{ id: form.get("client_id") ?? "", secret: form.get("client_secret") ?? undefined }]
  }
  const encoded = /^Basic (.+)$/i.exec(authorization)?.[1] ?? ""
  const [, id, secret] = /^([^:]*):(.*)$/s.exec(Either.getOrElse(Encoding.decodeBase64String(encoded), () => "")) ?? []
  if (id === undefined || secret === undefined) return []
  // unlike decodeURIComponent, it takes a lone % as it is
  const decode = (text: string) => new URLSearchParams(`=${text.replaceAll("&", "%26")}`).get("") ?? ""
  return [{ id: decode(id), secret: decode(secret) }, { id, secret }]
}

export const respond = (status: number, body?: unknown, headers?: Readonly<Record<string, string>>): Response => {
  if (status === 0) return Response.error()
  const isJson = body !== undefined && typeof body !== "string"
  return new Response(isJson ? JSON.stringify(body) : body ?? null, {
    status,
    headers: { "cache-control": "no-store", ...(isJson ? { "content-type": "application/json" } : {}), ...headers }
  })
}

/** An error of RFC 6749 §5.2. */
export const refuse = (error: string, description?: string): Response =>
  respond(400, { error, ...(description === undefined ? {} : { error_description: description }) })

export const bodyText = (
  request: HttpClientRequest.HttpClientRequest
): Effect.Effect<string, HttpClientError.RequestError> =>
  Effect.mapError(
    read(request.body),
    (cause) => new HttpClientError.RequestError({ request, reason: "Encode", cause })
  )

const read = (body: HttpBody.HttpBody): Effect.Effect<string, unknown> => {
  switch (body._tag) {
    case "Empty":
      return Effect.succeed("")
    case "Uint8Array":
      return Effect.sync(() => new TextDecoder().decode(body.body))
    case "FormData":
      return Effect.tryPromise(() => new Response(body.formData).text())
    case "Stream":
      return Stream.mkString(Stream.decodeText(body.stream))
    case "Raw":
      // whatever the platform's own client takes
      return Effect.tryPromise(() => new Response(body.body as BodyInit).text())
  }
}
