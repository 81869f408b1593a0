import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const folder = join(import.meta.dirname, "../..")
const { bin, engines } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
  readonly bin: Record<string, string>
  readonly engines: { readonly node: string }
}
const entry = join(folder, bin["floodgate"]!.replace(/^dist\/(.*)\.js$/, "src/$1.ts"))

/** Runs the command on a Node that reports this version and cannot load any package. */
const on = (version: string) => {
  const pretend = `import { registerHooks } from "node:module"
    Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } })
    Object.defineProperty(process, "version", { value: "v${version}" })
    registerHooks({ resolve: (specifier, context, next) => {
      if (/^[a-z@]/.test(specifier) && !/^(node|file|data):/.test(specifier)) throw new Error("loads " + specifier)
      return next(specifier, context)
    } })`
  const hooks = `data:text/javascript,${encodeURIComponent(pretend)}`
  return spawnSync(process.execPath, ["--import", hooks, entry, "--version"], { encoding: "utf8" })
}

describe("the installed command", () => {
  for (const version of ["18.20.4", "20.20.2", "22.18.0"]) {
    it(`says on Node ${version} which one it needs, before it loads a package`, () => {
      const { status, stderr, stdout } = on(version)
      assert.match(
        stderr,
        new RegExp(`^floodgate needs Node 22\\.19 or newer; this is v${version.replaceAll(".", "\\.")}`)
      )
      assert.strictEqual(stderr.trim().split("\n").length, 1)
      assert.deepStrictEqual([status, stdout], [1, ""])
    })
  }

  for (const version of ["22.19.0", "23.0.0", "24.21.0"]) {
    it(`loads its packages on Node ${version}`, () => {
      assert.include(on(version).stderr, "loads @effect/platform-node/NodeRuntime")
    })
  }

  it("needs the Node that package.json asks for", () => {
    assert.strictEqual(engines.node, ">=22.19")
  })
})
