/**
 * Bundles the command `floodgate-gateway` from the sources, with all packages that it uses and the store in Redis: for its npm package, which
 * then brings no others, and for the executable.
 */
import { readdirSync, readFileSync } from "node:fs"
import { builtinModules } from "node:module"
import { join } from "node:path"
import { type OutputOptions, rolldown } from "rolldown"

const gateway = join(import.meta.dirname, "../packages/gateway")

/** A path as Windows may write it, too. */
const slashed = (path: string): string => path.replaceAll("\\", "/")

/** The clients of Redis, and a package that the first uses for a command which the store never sends. */
type OptionalImport = "redis" | "ioredis" | "@node-rs/xxhash"

const versionIn = (at: string): string => JSON.parse(readFileSync(join(at, "package.json"), "utf8")).version

/** Writes the bundle, which imports only these packages. Returns the folders of those in it. */
export const bundle = async (
  imported: ReadonlyArray<OptionalImport>,
  options: OutputOptions
): Promise<ReadonlyArray<string>> => {
  const [versions, program] = ["version.ts", "bin.ts"].map((name) => slashed(join(gateway, "src/command", name)))
  const bundled = await rolldown({
    input: { "floodgate-gateway": join(gateway, "src/command/entry.ts") },
    platform: "node",
    external: [...imported],
    resolve: { conditionNames: ["@floodgate/source", "module", "node", "import", "default"] },
    // There is no package.json at its place beside it, and no bundler's environment.
    transform: { define: { "import.meta.env": "undefined" } },
    plugins: [
      {
        name: "command",
        load: (id) => (slashed(id) === versions ? `export const version = "${versionIn(gateway)}"` : null),
        // It runs when it is loaded. package.json says that no module does.
        transform: (_, id) => (slashed(id) === program ? { moduleSideEffects: true } : null)
      }
    ],
    onLog: (_, { message }) => {
      throw new Error(message)
    }
  })
  const { output } = await bundled.write({ ...options, comments: { legal: false } })
  await bundled.close()
  const chunks = output.filter((one) => one.type === "chunk")
  const own = output.map(({ fileName }) => fileName)
  const known = new Set([...own, ...imported, ...builtinModules, ...builtinModules.map((name) => `node:${name}`)])
  const others = chunks.flatMap(({ dynamicImports, imports }) => [...imports, ...dynamicImports])
  const missing = others.filter((name) => !known.has(name))
  if (missing.length > 0) throw new Error(`the bundle needs more than itself: ${missing.join(", ")}`)
  const packages = chunks
    .flatMap(({ moduleIds }) => moduleIds)
    .flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(slashed(id))?.[0] ?? [])
  return [...new Set(packages)].sort()
}

/** The licence of a package: its file, or the name of it. */
const licenceOf = (at: string): string => {
  const file = readdirSync(at).find((name) => /^licen[cs]e/i.test(name))
  const { license } = JSON.parse(readFileSync(join(at, "package.json"), "utf8")) as { readonly license: string }
  return file === undefined ? `License: ${license}` : readFileSync(join(at, file), "utf8")
}

const nameOf = (at: string): string => at.replace(/^.*\/node_modules\//, "")

/** The licences of Floodgate, of packages by their folders, and of more programs by their names. */
export const licences = (packages: ReadonlyArray<string>, more: Readonly<Record<string, string>> = {}): string =>
  Object.entries({
    Floodgate: licenceOf(gateway),
    ...Object.fromEntries(packages.map((at) => [`${nameOf(at)} ${versionIn(at)}`, licenceOf(at)])),
    ...more
  })
    .map(([name, text]) => `${name}\n${"=".repeat(name.length)}\n\n${text.trim()}\n`)
    .join("\n\n")
