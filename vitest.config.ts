import { defineConfig } from "vitest/config"

// Tests import the package by its own name; this condition makes that mean the sources.
const conditions = ["@floodgate/source"]
const resolve = { conditions: [...conditions, "module", "node", "import", "default"] }
const ssr = { resolve: { conditions: [...conditions, "module", "node", "import", "default"] } }

const project = (name: string, include: Array<string>, testTimeout: number, isolate = true) => ({
  resolve,
  ssr,
  test: { name, include, testTimeout, isolate, setupFiles: ["test/setup.ts"], environment: "node" as const }
})

export default defineConfig({
  test: {
    projects: [
      project("unit", ["test/**/*.test.ts"], 20_000),
      project("docs", [".doctest/*.test.ts"], 10_000, false),
      project("soak", ["test/**/*.soak.ts"], 900_000)
    ],
    reporters: process.env.CI ? ["default", ["json", { outputFile: ".vitest/results.json" }]] : ["default"],
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      exclude: ["src/bin.ts"],
      reporter: ["text-summary", "html", "json-summary"]
    }
  }
})
