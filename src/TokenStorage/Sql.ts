/**
 * Tokens in a database, shared by all that use the same table: `TokenStorage` on `@effect/sql`, for PostgreSQL, SQLite and
 * MySQL.
 *
 * Comparing and acting are one statement each, and times are those of the database, so that the clocks of the processes do
 * not matter. Expired rows are deleted when a token is stored; tokens that came with a refresh token are kept.
 *
 * @since 0.2.0
 */
import { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { Fragment } from "@effect/sql/Statement"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { digest } from "../internal/digest.ts"
import { check } from "../internal/options.ts"
import { leaseTerm } from "../internal/storage/lease.ts"
import { leaseKey } from "../internal/storage/leaseRecord.ts"
import type { ConfigurationError } from "../TokenError.ts"
import { type LeaseOptions, make, type Storage, TokenStorage } from "../TokenStorage.ts"

/**
 * @since 0.2.0
 * @category models
 */
export interface Options extends LeaseOptions {
  /** The table: letters, digits and underscores. Defaults to `alf_tokens`. */
  readonly table?: string | undefined
  /** Whether the layer creates table and index if they do not exist. Defaults to false. */
  readonly createTable?: boolean | undefined
  /** What each key begins with. Defaults to nothing. */
  readonly prefix?: string | undefined
}

/**
 * Tokens in a table. Without `createTable` a migration of yours creates it:
 *
 * ```sql
 * CREATE TABLE alf_tokens (id VARCHAR(255) PRIMARY KEY, value TEXT NOT NULL, expires_at BIGINT);
 * CREATE INDEX alf_tokens_expires_at ON alf_tokens (expires_at);
 * ```
 *
 * **Details**
 *
 * A statement that fails later never fails a request: the storage counts as empty, with a warning. For refresh tokens of
 * people wrap it in `TokenStorage.encrypted`.
 *
 * @example
 * ```ts
 * import { SqliteClient } from "@effect/sql-sqlite-node"
 * import { Layer } from "effect"
 * import * as TokenStorageSql from "effect-alf/TokenStorage/Sql"
 *
 * export const storage = TokenStorageSql.layer({ createTable: true }).pipe(
 *   Layer.provide(SqliteClient.layer({ filename: "tokens.db" }))
 * )
 * ```
 *
 * @since 0.2.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<TokenStorage, ConfigurationError | SqlError, SqlClient> =>
  Layer.effect(
    TokenStorage,
    Effect.gen(function*() {
      const { createTable = false, prefix = "", table = "alf_tokens" } = options
      yield* check(/^[A-Za-z_][A-Za-z0-9_]{0,48}$/.test(table), () =>
        "table must be letters, digits and underscores, at most 49 of them: write one such as alf_tokens")
      const term = yield* leaseTerm(options)
      const sql = yield* SqlClient
      if (createTable) {
        yield* create(sql, table)
      }
      return fromClient(sql, table, prefix, term)
    })
  )

const create = (sql: SqlClient, table: string): Effect.Effect<void, SqlError> => {
  const value = sql.onDialectOrElse({ mysql: () => sql`MEDIUMTEXT`, orElse: () => sql`TEXT` })
  const columns = sql`id VARCHAR(255) PRIMARY KEY, value ${value} NOT NULL, expires_at BIGINT`
  const createTable = sql`CREATE TABLE IF NOT EXISTS ${sql(table)} (${columns})`
  const createIndex = sql`CREATE INDEX IF NOT EXISTS ${sql(`${table}_expires_at`)} ON ${sql(table)} (expires_at)`
  // an index of MySQL has no IF NOT EXISTS, and the table is small
  const hasIndex = sql.onDialectOrElse({ mysql: () => false, orElse: () => true })
  // of several that create it at once, PostgreSQL lets one through and fails the others: by then it is there
  const create = (statement: Effect.Effect<unknown, SqlError>) => Effect.asVoid(Effect.retry(statement, { times: 2 }))
  return Effect.zipRight(create(createTable), hasIndex ? create(createIndex) : Effect.void)
}

/** The longest key, in characters: that of the column. */
const longestKey = 255

const fromClient = (sql: SqlClient, name: string, prefix: string, term: Duration.Duration): Storage => {
  const table = sql(name)
  const named = (key: string): string =>
    (prefix + leaseKey(key)).length > longestKey ? digest(prefix + key) : prefix + key

  /** The database's time, in milliseconds. */
  const now: Fragment = sql.onDialectOrElse({
    pg: () => sql`(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT`,
    mysql: () => sql`CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)`,
    orElse: () => sql`CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`
  })
  const after = (duration: Duration.Duration): Fragment => sql`${now} + ${Math.ceil(Duration.toMillis(duration))}`
  const isCurrent: Fragment = sql`(expires_at IS NULL OR expires_at > ${now})`

  const insert = (id: string, value: string, expiresAt: Fragment, otherwise: "replace" | "keep") => {
    const row = sql`INTO ${table} (id, value, expires_at) VALUES (${id}, ${value}, ${expiresAt})`
    return sql.onDialectOrElse({
      mysql: () =>
        otherwise === "keep"
          ? sql`INSERT IGNORE ${row}`
          : sql`INSERT ${row} ON DUPLICATE KEY UPDATE value = VALUES(value), expires_at = VALUES(expires_at)`,
      orElse: () =>
        otherwise === "keep"
          ? sql`INSERT ${row} ON CONFLICT (id) DO NOTHING`
          : sql`INSERT ${row} ON CONFLICT (id) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at`
    })
  }

  const read = (id: string): Effect.Effect<Option.Option<string>, SqlError> =>
    Effect.map(
      sql<{ readonly value: string }>`SELECT value FROM ${table} WHERE id = ${id} AND ${isCurrent}`,
      ([row]) => Option.fromNullable(row?.value)
    )
  const removeIf = (id: string, value: string) => sql`DELETE FROM ${table} WHERE id = ${id} AND value = ${value}`
  const sweep = sql`DELETE FROM ${table} WHERE expires_at <= ${now}`
  const isHeldBy = (owner: string) => (effect: Effect.Effect<Option.Option<string>, SqlError>) =>
    Effect.map(effect, Option.contains(owner))

  return make({
    get: (key) => described(read(named(key))),
    set: (key, text, timeToLive) =>
      described(Effect.zipRight(
        sweep,
        insert(named(key), text, Option.match(timeToLive, { onNone: () => sql`NULL`, onSome: after }), "replace")
      )),
    remove: (key, text) => described(removeIf(named(key), text)),
    lease: {
      term,
      take: (key, owner) => {
        const id = leaseKey(named(key))
        return described(Effect.zipRight(
          Effect.zipRight(
            sql`DELETE FROM ${table} WHERE id = ${id} AND expires_at <= ${now}`,
            insert(id, owner, after(term), "keep")
          ),
          isHeldBy(owner)(read(id))
        ))
      },
      renew: (key, owner) => {
        const id = leaseKey(named(key))
        return described(Effect.zipRight(
          sql`UPDATE ${table} SET expires_at = ${after(term)} WHERE id = ${id} AND value = ${owner} AND ${isCurrent}`,
          isHeldBy(owner)(read(id))
        ))
      },
      release: (key, owner) => described(removeIf(leaseKey(named(key)), owner))
    }
  })
}

/** What the database says may quote a token. */
const described = <A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, string> =>
  Effect.mapError(effect, () => "SQL: the statement failed")
