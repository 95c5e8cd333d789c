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
    testTimeout: 20_000,
    hookTimeout: 20_000,
    poolOptions: {
      forks: { minForks: 1, maxForks: 1 },
      threads: { minThreads: 1, maxThreads: 4 }
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
        // servers, processes, browsers and runtimes: these tests watch the time, so one file runs after another
        test: { name: "integration", include: ["test/integration/**/*.test.ts"], pool: "forks" }
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
