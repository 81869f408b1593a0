/**
 * What Floodgate promises can be no more stable than what it is made from: docs/figures/compatibility.md says what the marks mean, and this
 * holds them to Effect's own.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { apiModules } from "../scripts/api.ts"
import { filesOf, importsOf, packages, publicModules, root, sourceFiles } from "./support/modules.ts"
import { lessStableIn, weaker } from "./support/stability.ts"

/** Loaded by one function that says so, and no type of it is in a signature: the module around it stays stable. */
const loadedLater = new Map([["src/adapters/promise/index.ts", "effect/observability/PrometheusMetrics"]])

/** What a file uses of Effect that is not stable, directly or by what it imports of its package. */
const reachedFrom = (file: string, seen = new Set<string>()): ReadonlyArray<readonly [name: string, mark: string]> => {
  if (seen.has(file)) return []
  seen.add(file)
  return [
    ...[...lessStableIn(file)].filter(([name]) => loadedLater.get(file) !== name),
    ...importsOf(file).flatMap(({ from }) => (/^(src|packages)\//.test(from) ? reachedFrom(from, seen) : []))
  ]
}

const weakest = (reached: ReturnType<typeof reachedFrom>): string =>
  reached.reduce((mark, [, other]) => weaker(mark, other), "stable")

const namesIn = (reached: ReturnType<typeof reachedFrom>): ReadonlyArray<string> => reached.map(([name]) => name)

/** The public modules, the root among them. */
const modules = [
  ...apiModules().filter(({ parent }) => parent === undefined),
  ...publicModules().flatMap(({ file, name }) => (name === "floodgate" ? [{ name, file, stability: "stable" }] : []))
]

describe("stability", () => {
  it("lets the core use only what Effect marks stable, not even one export that is not", () => {
    for (const name of ["floodgate", "floodgate/LlmClient", "floodgate/Budget", "floodgate/Retry", "floodgate/fetch"]) {
      assert.deepStrictEqual(namesIn(reachedFrom(modules.find((one) => one.name === name)!.file)), [], name)
    }
    // Whatever else is in the library, except three subpaths.
    const others = sourceFiles().filter((file) => !/^src\/(adapters\/(ai|breaker)\b|testing\/server\/)/.test(file))
    assert.deepStrictEqual(
      others.flatMap((file) => [...lessStableIn(file).keys()].map((name) => `${file} ${name}`)),
      [...loadedLater].map(([file, name]) => `${file} ${name}`)
    )
  })

  it("marks no module as more stable than what it uses of Effect", () => {
    const marked = modules.map(({ file, name, stability }) => [name, weaker(stability, weakest(reachedFrom(file)))])
    assert.deepStrictEqual(
      marked,
      modules.map(({ name, stability }) => [name, stability])
    )
  })

  it("says for which versions of Effect each module is made that uses unstable ones", () => {
    const silent = modules.filter(({ file }) => {
      const text = readFileSync(join(root, file), "utf8")
      return reachedFrom(file).length > 0 && !text.slice(0, text.indexOf("\nimport ")).includes("`~4.1`")
    })
    assert.deepStrictEqual(
      silent.map(({ name }) => name),
      []
    )
  })

  it("asks for ~4.1 of Effect in packages that use unstable modules, and for ^4.1 in the library", () => {
    for (const folder of [".", ...packages.map((name) => `packages/${name}`)]) {
      const { dependencies, peerDependencies } = JSON.parse(
        readFileSync(join(root, folder, "package.json"), "utf8")
      ) as Record<"dependencies" | "peerDependencies", Record<string, string> | undefined>
      const isUnstable = folder !== "." && filesOf(`${folder}/src`).some((file) => lessStableIn(file).size > 0)
      const wanted = Object.entries({ ...dependencies, ...peerDependencies }).filter(([name]) =>
        /^@?effect\b/.test(name)
      )
      assert.isAbove(wanted.length, 0, folder)
      for (const [name, range] of wanted) {
        assert.strictEqual(range, isUnstable ? "~4.1.0" : "^4.1.0", `${folder}: ${name}`)
      }
    }
  })

  it("lists the modules by their marks in docs/figures/compatibility.md", () => {
    const page = readFileSync(join(root, "docs/figures/compatibility.md"), "utf8")
    const rows = Array.from(page.matchAll(/^\| \*\*(\w+)\*\* \|(.*)$/gm), ([, mark, row]) => [mark, row!] as const)
    for (const { name, stability } of modules) {
      const inRows = rows.filter(([, row]) => row.includes(`\`${name}\``)).map(([mark]) => mark)
      assert.deepStrictEqual(inRows, stability === "stable" ? [] : [stability], name)
    }
  })
})
