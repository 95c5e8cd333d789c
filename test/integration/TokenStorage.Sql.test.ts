/** Tokens in a database: the suite of all storages, and what is special to SQL. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { SqliteClient } from "@effect/sql-sqlite-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Deferred, Duration, Effect, Fiber, Layer, Option, Redacted } from "effect"
import { AccessToken, TokenError, TokenStorage } from "effect-alf"
import { suite } from "effect-alf/testing/TokenStorageConformance"
import * as TokenStorageSql from "effect-alf/TokenStorage/Sql"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { isPostgresMissing, postgresServer, serverOfFile } from "../support/servers.ts"

const folder = mkdtempSync(join(tmpdir(), "effect-alf-"))
afterAll(() => rmSync(folder, { recursive: true }))

const sqlite = SqliteClient.layer({ filename: join(folder, "tokens.db") })

const token = (value: string, life: Option.Option<Duration.Duration> = Option.none(), refreshToken?: string) =>
  Effect.map(DateTime.now, (issuedAt) =>
    new AccessToken.AccessToken({
      value: Redacted.make(value),
      issuedAt,
      expiresAt: Option.map(life, (life) => DateTime.addDuration(issuedAt, life)),
      refreshToken: Option.map(Option.fromNullable(refreshToken), (text) => Redacted.make(text)),
      extra: Redacted.make({ instance_url: "https://eu1.test" }),
      generation: 3
    }))

const tests = (name: string, database: () => Layer.Layer<SqlClient.SqlClient, unknown>) => {
  const storage = (options: TokenStorageSql.Options = {}) =>
    TokenStorageSql.layer({ createTable: true, ...options }).pipe(Layer.provide(database()))

  suite(name, () => storage(), { describe, it, shared: true })
  suite(`${name}, encrypted`, () =>
    TokenStorage.encrypted(storage({ table: "encrypted_tokens" }), {
      keys: [Redacted.make("00".repeat(32))]
    }), { describe, it, shared: true })

  describe(`${name}`, () => {
    const build = (options: TokenStorageSql.Options = {}) =>
      Effect.map(Layer.build(Layer.fresh(storage(options))), Context.get(TokenStorage.TokenStorage))
    const rows = (table: string) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql<{ readonly id: string }>`SELECT id FROM ${sql(table)} ORDER BY id`
      ).pipe(
        Effect.map((rows) => rows.map(({ id }) => id)),
        Effect.provide(database())
      )

    it.scopedLive("keeps members and generation, and refresh tokens without end", () =>
      Effect.gen(function*() {
        const { get, set } = yield* build()
        const stored = yield* token("a", Option.some(Duration.seconds(1)), "refresh")
        yield* set("kept", stored)
        yield* Effect.sleep("1200 millis")
        const found = Option.getOrThrow(yield* get("kept"))
        assert.isTrue(AccessToken.isSame(found, stored))
        assert.deepStrictEqual(AccessToken.extra(found, "instance_url"), Option.some("https://eu1.test"))
        assert.strictEqual(found.generation, 3)
      }))

    it.scopedLive("sweeps rows that have expired when a token is stored", () =>
      Effect.gen(function*() {
        const { get, set } = yield* build({ table: "swept" })
        yield* set("short", yield* token("a", Option.some(Duration.millis(100))))
        yield* set("long", yield* token("b", Option.some(Duration.minutes(1))))
        yield* Effect.sleep("200 millis")
        assert.deepStrictEqual(yield* get("short"), Option.none())
        yield* set("next", yield* token("c"))
        assert.deepStrictEqual(yield* rows("swept"), ["long", "next"])
      }))

    it.scopedLive("tables and prefixes keep tokens apart; long keys fit", () =>
      Effect.gen(function*() {
        const [a, b, c] = yield* Effect.all([
          build({ table: "one" }),
          build({ table: "two" }),
          build({ table: "one", prefix: "p:" })
        ])
        yield* a.set("key", yield* token("a"))
        assert.deepStrictEqual([yield* b.get("key"), yield* c.get("key")], [Option.none(), Option.none()])
        const long = yield* build({ table: "one", prefix: "x".repeat(400) })
        yield* long.set("key", yield* token("long"))
        assert.isTrue(Option.isSome(yield* long.get("key")))
        yield* long.exclusive("key")(Effect.void)
      }))

    it.scopedLive("gives the lease of a dead holder away after its term", () =>
      Effect.gen(function*() {
        const [a, b] = yield* Effect.all([
          build({ table: "leased", term: "500 millis" }),
          build({ table: "leased", term: "500 millis" })
        ])
        const entered = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(
          a.exclusive("key")(Effect.zipRight(Deferred.succeed(entered, undefined), Effect.sleep("1500 millis")))
        )
        yield* Deferred.await(entered)
        // a living holder renews
        const [took] = yield* Effect.timed(b.exclusive("key")(Effect.void))
        assert.isAtLeast(Duration.toMillis(took), 1000)
        yield* Fiber.join(holder)
        // a dead one does not
        const sql = yield* Effect.map(Layer.build(database()), Context.get(SqlClient.SqlClient))
        yield* b.exclusive("other")(Effect.void)
        yield* sql`INSERT INTO ${sql("leased")} (id, value, expires_at) VALUES ('dead:lease', 'somebody', ${
          Date.now() + 700
        })`
        const [waited] = yield* Effect.timed(b.exclusive("dead")(Effect.void))
        assert.isAtLeast(Duration.toMillis(waited), 300)
        assert.isAtMost(Duration.toMillis(waited), 5000)
      }))

    it.scopedLive("is created by many at once", () =>
      Effect.gen(function*() {
        const connections = yield* Effect.all(Array.from({ length: 8 }, () => Layer.build(Layer.fresh(database()))))
        for (const table of Array.from({ length: 10 }, (_, n) => `created_${n}`)) {
          yield* Effect.forEach(
            connections,
            (connection) =>
              Layer.build(Layer.fresh(TokenStorageSql.layer({ createTable: true, table }))).pipe(
                Effect.provide(connection)
              ),
            { concurrency: "unbounded" }
          )
        }
      }))

    it.scopedLive("a table that is not there counts as empty, and quotes nothing", () =>
      Effect.gen(function*() {
        const { get } = yield* Effect.map(
          Layer.build(TokenStorageSql.layer({ table: "nowhere" }).pipe(Layer.provide(database()))),
          Context.get(TokenStorage.TokenStorage)
        )
        const error = yield* Effect.flip(get("key"))
        assert.strictEqual(error.description, "SQL: the statement failed")
      }))

    it.scopedLive("a name that is not one of a table is a ConfigurationError", () =>
      Effect.gen(function*() {
        for (const table of ["", "a b", "x; DROP TABLE y", "1a", "a".repeat(50)]) {
          const error = yield* Effect.flip(build({ table }))
          assert.instanceOf(error, TokenError.ConfigurationError)
        }
      }))
  })
}

tests("TokenStorage/Sql over SQLite", () => sqlite)

describe.skipIf(isPostgresMissing())("with a server", () => {
  const server = serverOfFile(postgresServer)
  tests(
    "TokenStorage/Sql over PostgreSQL",
    () =>
      Layer.unwrapEffect(Effect.sync(() =>
        PgClient.layer({
          host: "127.0.0.1",
          port: server().port,
          username: "postgres",
          database: "postgres",
          maxConnections: 4
        })
      ))
  )
})
