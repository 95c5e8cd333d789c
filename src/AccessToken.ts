/**
 * An access token as a value (RFC 6749 §1.4): the secret, how long it is good for, and what it is good for.
 *
 * The secret and the refresh token are `Redacted`: logging, printing or serialising a token shows neither.
 * `encode` and `decode` are the one exception: they turn a token into the text that a `TokenStorage` keeps, and back.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

const withDefault = <A, I>(schema: Schema.Schema<A, I>, value: A) =>
  Schema.propertySignature(schema).pipe(Schema.withConstructorDefault(() => value))

const noExtra = Redacted.make<Readonly<Record<string, unknown>>>({})

/**
 * An access token.
 *
 * @since 0.1.0
 * @category models
 */
export class AccessToken extends Schema.Class<AccessToken>("effect-alf/AccessToken")({
  /** The secret itself (`access_token`). */
  value: Schema.Redacted(Schema.NonEmptyString),
  /** How it is presented to an API: the `Authorization` scheme. Defaults to `Bearer` (RFC 6750). */
  type: withDefault(Schema.NonEmptyString, "Bearer"),
  /** The scopes that were granted: those of the response, or else those that were asked for (RFC 6749 §5.1). */
  scope: withDefault(Schema.Array(Schema.String), []),
  /** The moment the token request was sent: the lifetime is counted from here. */
  issuedAt: Schema.DateTimeUtcFromNumber,
  /** The end of the token's life; `None` if the authorization server did not say, which is the default. */
  expiresAt: withDefault(Schema.OptionFromNullOr(Schema.DateTimeUtcFromNumber), Option.none()),
  /** What the next token can be had for (RFC 6749 §6). Defaults to none. */
  refreshToken: withDefault(Schema.OptionFromNullOr(Schema.Redacted(Schema.NonEmptyString)), Option.none()),
  /** The other members of the response: `id_token`, `instance_url`, … Read one with `extra`. Defaults to none. */
  extra: withDefault(Schema.Redacted(Schema.Record({ key: Schema.String, value: Schema.Unknown })), noExtra),
  /**
   * How many tokens the storage held before it: the order of tokens among all that share it, whatever their clocks say.
   * Defaults to 0.
   */
  generation: withDefault(Schema.NonNegativeInt, 0)
}) {}

/**
 * Another member of the token response, by its name.
 *
 * @since 0.2.0
 * @category getters
 */
export const extra = (self: AccessToken, name: string): Option.Option<unknown> => {
  const members = Redacted.value(self.extra)
  return Object.hasOwn(members, name) ? Option.some(members[name]) : Option.none()
}

/**
 * Whether two values are the same token: the same secret, issued at the same moment.
 *
 * An authorization server that hands out the same secret twice has issued two tokens.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isSame = (self: AccessToken, that: AccessToken): boolean =>
  self === that ||
  (Redacted.value(self.value) === Redacted.value(that.value) && issued(self) === issued(that))

/**
 * Whether a token is another one than `that`, and not an older one: `generation` is the order, whatever the clocks say.
 *
 * @since 0.1.0
 * @category predicates
 */
export const supersedes = (self: AccessToken, that: AccessToken): boolean =>
  !isSame(self, that) && self.generation >= that.generation

const issued = (token: AccessToken): number => DateTime.toEpochMillis(token.issuedAt)

/**
 * Whether a string can be sent as a token in a header: visible ASCII, no space (RFC 6749 §A.12, RFC 6750 §2.1).
 *
 * @since 0.1.0
 * @category predicates
 */
export const isHeaderSafe = (value: string): boolean => /^[\x21-\x7e]+$/.test(value)

/**
 * How long a store must keep the token, in milliseconds from `now`; `None` to keep it indefinitely.
 *
 * A token that comes with a refresh token is kept indefinitely: the refresh token outlives it.
 *
 * @since 0.1.0
 * @category storage
 */
export const timeToLive = (self: AccessToken, now: number): Option.Option<number> =>
  Option.isSome(self.refreshToken)
    ? Option.none()
    : Option.map(self.expiresAt, (expiresAt) => Math.max(0, DateTime.toEpochMillis(expiresAt) - now))

const Stored = Schema.parseJson(Schema.Struct({ version: Schema.Literal(2), token: AccessToken }))
const encodeStored = Schema.encodeSync(Stored)

/** Version 1 had neither `extra` nor `generation`. */
const Version1 = Schema.transform(
  Schema.Struct({ version: Schema.Literal(1), token: Schema.Struct(AccessToken.fields).omit("extra", "generation") }),
  Schema.Struct({ version: Schema.Literal(2), token: Schema.typeSchema(AccessToken) }),
  {
    strict: true,
    decode: ({ token }) => ({ version: 2 as const, token: new AccessToken(token) }),
    encode: ({ token }) => ({ version: 1 as const, token })
  }
)
const decodeStored = Schema.decodeUnknownOption(
  Schema.Union(Stored, Schema.compose(Schema.parseJson(), Version1, { strict: false }))
)

/**
 * The text that a storage keeps. **It holds the secret**: it belongs in a storage, nowhere else.
 *
 * @since 0.1.0
 * @category storage
 */
export const encode = (self: AccessToken): string => encodeStored({ version: 2, token: self })

/**
 * A token from the text that a storage kept; `None` if another version or another program wrote it.
 *
 * @since 0.1.0
 * @category storage
 */
export const decode = (text: unknown): Option.Option<AccessToken> =>
  Option.filterMap(
    decodeStored(text),
    ({ token }) =>
      isHeaderSafe(token.type) && isHeaderSafe(Redacted.value(token.value)) ? Option.some(token) : Option.none()
  )
