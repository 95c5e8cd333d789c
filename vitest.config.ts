import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src", import.meta.url))

/** What runs programs in processes of their own, and watches no time. */
const programs = [
  "test/integration/{demo.test.ts,docs.test.ts,leaks/*.test.ts,runtimes/**,mcp/*.test.ts,node/examples.test.ts}"
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
    setupFiles: "test/support/setup.ts",
    poolOptions: {
      forks: { minForks: 1, maxForks: 1 },
      // loading the modules anew for each file takes longer than the tests do
      threads: { minThreads: 4, maxThreads: 4, isolate: false }
    },
    projects: [
      {
        extends: true,
        // a test clock waits more than it works, so files run side by side and each takes longer
        test: {
          name: "unit",
          include: ["test/{unit,behaviour}/**/*.test.ts"],
          pool: "threads",
          testTimeout: 60_000
        }
      },
      {
        extends: true,
        // servers, processes and browsers: these tests watch the time, so one file runs after another
        test: { name: "integration", include: ["test/integration/**/*.test.ts"], exclude: programs, pool: "forks" }
      },
      {
        extends: true,
        // another pool, so that they run beside the others
        test: { name: "programs", include: programs, pool: "threads" }
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
