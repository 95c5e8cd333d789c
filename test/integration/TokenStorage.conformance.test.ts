/** Every storage passes the suite that is exported for those who write one. */
import { describe, it } from "@effect/vitest"
import { KeyValueStore } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { Layer, Redacted } from "effect"
import { TokenStorage } from "effect-alf"
import { suite } from "effect-alf/testing/TokenStorageConformance"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"

const folder = mkdtempSync(join(tmpdir(), "effect-alf-"))
afterAll(() => rmSync(folder, { recursive: true }))

const keys = [Redacted.make("00".repeat(32))] as const

suite("layerMemory", () => TokenStorage.layerMemory, { describe, it })

suite("layerStore over a Map", () => TokenStorage.layerStore(new Map<string, string>()), { describe, it })

suite(
  "layerKeyValueStore over memory",
  () => TokenStorage.layerKeyValueStore().pipe(Layer.provide(KeyValueStore.layerMemory)),
  { describe, it }
)

suite("layerKeyValueStore over files", () =>
  TokenStorage.layerKeyValueStore().pipe(
    Layer.provide(KeyValueStore.layerFileSystem(join(folder, "keyValueStore"))),
    Layer.provide(NodeContext.layer)
  ), { describe, it, shared: true })

suite(
  "layerFileSystem",
  () => TokenStorage.layerFileSystem(join(folder, "files")).pipe(Layer.provide(NodeContext.layer)),
  { describe, it, shared: true }
)

suite("encrypted, over layerMemory", () => TokenStorage.encrypted(TokenStorage.layerMemory, { keys }), { describe, it })

suite("encrypted, over layerFileSystem", () =>
  TokenStorage.encrypted(
    TokenStorage.layerFileSystem(join(folder, "encrypted")).pipe(Layer.provide(NodeContext.layer)),
    { keys }
  ), { describe, it, shared: true })
