import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src", import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-alf$/, replacement: `${src}/index.ts` },
      { find: /^effect-alf\/(.*)$/, replacement: `${src}/$1.ts` }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    // tests over real sockets watch the time: one file after another, on any number of cores
    fileParallelism: false,
    testTimeout: 20_000,
    hookTimeout: 20_000,
    typecheck: {
      include: ["test/**/*.test-d.ts"],
      tsconfig: "test/tsconfig.json"
    },
    coverage: {
      include: ["src/**/*.ts"]
    }
  }
})
