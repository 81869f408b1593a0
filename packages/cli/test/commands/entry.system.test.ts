import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const packages = join(import.meta.dirname, "../../..")

/** The installed commands, by the package that has them. */
const commands = { cli: "floodgate", gateway: "floodgate-gateway" } as const

const manifestOf = (name: string) =>
  JSON.parse(readFileSync(join(packages, name, "package.json"), "utf8")) as {
    readonly bin: Record<string, string>
    readonly engines: { readonly node: string }
  }

/** Runs a command on a Node that reports this version and cannot load any package but our own. */
const on = (version: string, name: keyof typeof commands, flag = "--help") => {
  // The gateway's command is a bundle, which begins with this file.
  const file =
    name === "gateway"
      ? "src/command/entry.ts"
      : manifestOf(name).bin[commands[name]]!.replace(/^dist\/(.*)\.js$/, "src/$1.ts")
  const pretend = `import { registerHooks } from "node:module"
    Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } })
    Object.defineProperty(process, "version", { value: "v${version}" })
    registerHooks({ resolve: (specifier, context, next) => {
      if (/^(?!@floodgate\\/)[a-z@]/.test(specifier) && !/^(node|file|data):/.test(specifier)) throw new Error("loads " + specifier)
      return next(specifier, context)
    } })`
  const hooks = `data:text/javascript,${encodeURIComponent(pretend)}`
  const args = ["--conditions=@floodgate/source", "--import", hooks, join(packages, name, file), flag]
  return spawnSync(process.execPath, args, { encoding: "utf8" })
}

for (const [name, command] of Object.entries(commands) as Array<[keyof typeof commands, string]>) {
  describe(`the installed command ${command}`, () => {
    for (const version of ["18.20.4", "20.20.2", "22.18.0"]) {
      it(`says on Node ${version} which one it needs, before it loads a package of others`, () => {
        const { status, stderr, stdout } = on(version, name)
        assert.match(
          stderr,
          new RegExp(`^${command} needs Node 22\\.19 or newer; this is v${version.replaceAll(".", "\\.")}`)
        )
        assert.strictEqual(stderr.trim().split("\n").length, 1)
        assert.deepStrictEqual([status, stdout], [1, ""])
      })
    }

    for (const version of ["22.19.0", "23.0.0", "24.21.0"]) {
      it(`loads its packages on Node ${version}`, () => {
        assert.match(on(version, name).stderr, /loads (@effect\/platform-node-shared|effect)\//)
      })
    }

    it("prints its version as the command itself does, before it loads a package of others", () => {
      const { stderr, stdout } = on("24.21.0", name, "--version")
      const bin = join(packages, name, name === "cli" ? "src/bin.ts" : "src/command/bin.ts")
      const { stdout: whole } = spawnSync(process.execPath, ["--conditions=@floodgate/source", bin, "--version"])
      assert.deepStrictEqual([stdout, stderr], [`${whole}`, ""])
    })

    it("needs the Node that package.json asks for", () => {
      assert.strictEqual(manifestOf(name).engines.node, ">=22.19")
    })
  })
}
