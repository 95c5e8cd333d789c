import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src", import.meta.url))

/** Tests that start servers, processes or browsers. They watch the time: one file after another, on any number of cores. */
const outside = [
  "test/{e2e,leaks,node}/**/*.test.ts",
  "test/contract/{node,servers,sockets,surface,token-storage}.test.ts",
  "test/{README,demo,TokenStorage*}.test.ts"
]

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-alf$/, replacement: `${src}/index.ts` },
      { find: /^effect-alf\/(.*)$/, replacement: `${src}/$1.ts` }
    ]
  },
  test: {
    testTimeout: 20_000,
    hookTimeout: 20_000,
    poolOptions: {
      forks: { minForks: 1, maxForks: 1 },
      threads: { minThreads: 1, maxThreads: 4 }
    },
    projects: [
      {
        extends: true,
        // under a test clock, which waits more than it works; side by side each of them takes longer
        test: { name: "inside", include: ["test/**/*.test.ts"], exclude: outside, pool: "threads", testTimeout: 60_000 }
      },
      {
        extends: true,
        test: { name: "outside", include: outside, pool: "forks", sequence: { groupOrder: 1 } }
      },
      {
        extends: true,
        test: {
          name: "types",
          include: [],
          typecheck: { enabled: true, only: true, include: ["test/**/*.test-d.ts"], tsconfig: "test/tsconfig.json" }
        }
      }
    ],
    coverage: {
      include: ["src/**/*.ts"]
    }
  }
})
