/**
 * Packs the package as npm would publish it, and uses it as strangers do. Needs a build (`npm run build`), no network.
 *
 * 1. The tarball holds what it must and nothing else.
 * 2. Every subpath of `exports` loads where only its own dependencies are installed; private ones do not.
 * 3. A strict TypeScript project (`exactOptionalPropertyTypes`, no `skipLibCheck`) compiles against all of them, with the
 *    oldest version of the SDK that the package asks for, one in between, and the newest.
 * 4. The compiled program runs with each, and so does the command.
 *
 *     node scripts/packCheck.ts                     with links to this project's node_modules
 *     node scripts/packCheck.ts --install           with `npm install TARBALL`, from npm's cache where it can
 *     node scripts/packCheck.ts --node /path/node   also with this Node; may be repeated
 */
import { execFile } from "node:child_process"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

const root = join(import.meta.dirname, "..")
const modules = join(root, "node_modules")
const temp = mkdtempSync(join(tmpdir(), "floodgate-pack-"))
const args = process.argv.slice(2)
const nodes = [process.execPath, ...args.filter((_, index) => args[index - 1] === "--node")]
let failed = 0

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  readonly version: string
  readonly exports: Record<string, unknown>
  readonly devDependencies: Record<string, string>
}

const check = (name: string, problem: string | undefined): void => {
  if (problem !== undefined) failed++
  console.log(problem === undefined ? `ok    ${name}` : `FAIL  ${name}\n${problem}`)
}

const run = (
  command: string,
  list: ReadonlyArray<string>,
  cwd: string
): Promise<{ readonly out: string; readonly ok: boolean }> =>
  new Promise((resolve) => {
    execFile(command, list, { cwd, encoding: "utf8", maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      const text = `${stdout}${stderr}`.trim()
      resolve({ out: text === "" && error !== null ? String(error) : text, ok: error === null })
    })
  })

const versionAt = async (runtime: string): Promise<string> => (await run(runtime, ["--version"], root)).out

/** What Node says when it imports these in a folder, each by its name: undefined where it does. One process has them all. */
const imported = async (
  runtime: string,
  specifiers: ReadonlyArray<string>,
  cwd: string
): Promise<ReadonlyMap<string, string | undefined>> => {
  const script = `for (const one of ${JSON.stringify(specifiers)}) {
    const problem = await import(one).then(() => null, (error) => String(error.stack ?? error))
    console.log(JSON.stringify([one, problem]))
  }`
  const { out } = await run(runtime, ["--input-type=module", "-e", script], cwd)
  const said = new Map(
    out
      .split("\n")
      .filter((line) => line.startsWith("["))
      .map((line) => JSON.parse(line) as [string, string | null])
  )
  return new Map(
    specifiers.map((one) => [one, said.has(one) ? (said.get(one) ?? undefined) : out || "it said nothing"])
  )
}

const problemOf = ({ ok, out }: { readonly out: string; readonly ok: boolean }): string | undefined =>
  ok ? undefined : out.slice(0, 4_000)

// -----------------------------------------------------------------------------
// What each subpath may need
// -----------------------------------------------------------------------------

const sdk = "@anthropic-ai/sdk"
const node = "@effect/platform-node"
const everything = ["effect", sdk, node, "redis", "@observablehq/plot", "d3", "linkedom"]

/** All that is not here needs `effect` alone. */
const needs: Readonly<Record<string, ReadonlyArray<string>>> = {
  ".": ["effect", sdk],
  "./LlmClient": ["effect", sdk],
  "./anthropic": ["effect", sdk],
  "./providers/Anthropic": ["effect", sdk],
  "./gateway": ["effect", node],
  "./redis": ["effect", node, "redis"],
  "./lab": everything,
  "./cli": everything
}

const isPublic = (file: string): boolean => /^[A-Z]\w*\.ts$/.test(file)
const subpaths = [
  ".",
  ...Object.entries(manifest.exports)
    .filter(([name, target]) => target !== null && !name.includes("*") && name !== "." && name !== "./package.json")
    .map(([name]) => name),
  ...readdirSync(join(root, "src"))
    .filter(isPublic)
    .map((file) => `./${file.slice(0, -3)}`),
  ...readdirSync(join(root, "src/providers"))
    .filter(isPublic)
    .map((file) => `./providers/${file.slice(0, -3)}`)
]
const forbidden = [
  "./internal/bucket",
  "./budget/make",
  "./bin",
  "./index",
  "./redis/index",
  "./lab/race",
  "./dist/index.js"
]

const specifier = (subpath: string): string => `floodgate${subpath.slice(1)}`

// -----------------------------------------------------------------------------
// The tarball
// -----------------------------------------------------------------------------

const packed = await run("npm", ["pack", "--silent", "--pack-destination", temp], root)
const tarball = join(temp, packed.out.split("\n").at(-1) ?? "")
if (!packed.ok) {
  console.error(packed.out)
  process.exit(1)
}
mkdirSync(join(temp, "unpacked"))
await run("tar", ["-xzf", tarball, "-C", join(temp, "unpacked")], temp)
const unpacked = join(temp, "unpacked/package")

const files = readdirSync(unpacked, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).slice(unpacked.length + 1))
const wanted =
  /^(package\.json|LICENSE|[A-Z]+\.md|docs\/.+\.(md|svg)|examples\/[^/]+\.(md|ts)|src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/
check(
  "the tarball holds sources, their build and the papers, nothing else",
  files.find((file) => !wanted.test(file))
)
const needed = [
  "README.md",
  "LICENSE",
  "docs/README.md",
  "examples/README.md",
  "dist/index.js",
  "dist/index.d.ts",
  "dist/bin.js"
]
check(
  "and all of them",
  needed.find((file) => !files.includes(file))
)
const lost = files
  .filter((file) => file.endsWith(".map"))
  .find((file) => {
    const { sources } = JSON.parse(readFileSync(join(unpacked, file), "utf8")) as { sources: ReadonlyArray<string> }
    return sources.some((source) => !files.includes(join(dirname(file), source)))
  })
check("every source map leads to a source in the tarball", lost)

// -----------------------------------------------------------------------------
// Consumers
// -----------------------------------------------------------------------------

/** The versions of the SDK that are tried, by the names that the dev dependencies have. */
const sdks = [sdk, `${sdk}-between`, `${sdk}-oldest`]
const versionOf = (name: string): string => manifest.devDependencies[name]!.replace(/^npm:.*@/, "")

/** A project in an empty folder with the package and only these beside it. */
const project = async (name: string, packages: ReadonlyArray<string>, sdkName = sdk): Promise<string> => {
  const folder = join(temp, name)
  mkdirSync(join(folder, "node_modules"), { recursive: true })
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
  if (args.includes("--install")) {
    const list = [
      tarball,
      `${sdk}@${versionOf(sdkName)}`,
      ...["effect", "@types/node"].map((one) => `${one}@${versionOf(one)}`)
    ]
    check(
      `npm install beside the SDK ${versionOf(sdkName)}`,
      problemOf(await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", ...list], folder))
    )
    return folder
  }
  await run("cp", ["-r", unpacked, join(folder, "node_modules/floodgate")], folder)
  for (const one of packages) {
    mkdirSync(dirname(join(folder, "node_modules", one)), { recursive: true })
    symlinkSync(join(modules, one === sdk ? sdkName : one), join(folder, "node_modules", one))
  }
  return folder
}

if (!args.includes("--install")) {
  const groups = Map.groupBy(subpaths, (subpath) => (needs[subpath] ?? ["effect"]).join(" + "))
  for (const [packages, group] of groups) {
    const folder = await project(`with-${groups.size}-${packages.replaceAll(/\W+/g, "-")}`, packages.split(" + "))
    for (const runtime of nodes) {
      for (const [one, problem] of await imported(runtime, group.map(specifier), folder)) {
        check(`${one} loads with ${packages}`, problem)
      }
    }
  }
}

const compilerOptions = {
  target: "ES2022",
  module: "NodeNext",
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  verbatimModuleSyntax: true,
  skipLibCheck: false,
  types: ["node"],
  outDir: "out",
  rootDir: "."
}
const everyModule = subpaths.map((subpath, index) => `export * as m${index} from "${specifier(subpath)}"`).join("\n")

/** The newest TypeScript, resolving as Node and as bundlers do, and the one before. */
const compilers = [
  ["TypeScript 7", "typescript", []],
  [
    "TypeScript 7, resolving as a bundler",
    "typescript",
    "--module ESNext --moduleResolution bundler --noEmit".split(" ")
  ],
  ["TypeScript 6", "typescript6", ["--noEmit"]]
] as const

/** What a strict project makes of the package, beside one version of the SDK. */
const checkConsumer = async (name: string): Promise<string> => {
  const beside = `beside the SDK ${versionOf(name)}`
  const consumer = await project(`consumer-${versionOf(name)}`, [...everything, "@types/node"], name)
  writeFileSync(join(consumer, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }))
  writeFileSync(join(consumer, "everything.ts"), everyModule)
  copyFileSync(join(root, "test/packaging/consumer.ts"), join(consumer, "consumer.ts"))

  for (const [compiler, folder, flags] of name === sdk ? compilers : compilers.slice(0, 1)) {
    const compiled = await run(process.execPath, [join(modules, folder, "bin/tsc"), ...flags], consumer)
    check(`a strict project compiles ${beside} with ${compiler}`, problemOf(compiled))
  }
  for (const runtime of nodes) {
    const { out } = await run(runtime, ["out/consumer.js"], consumer)
    const problem = out === "4 message_stop true 0" ? undefined : out || "it printed nothing"
    check(`its program runs ${beside} on Node ${await versionAt(runtime)}`, problem)
  }
  return consumer
}

// Side by side, because compilers take the most of the time.
const [newest] = await Promise.all(sdks.map(checkConsumer))
for (const [one, problem] of await imported(process.execPath, forbidden.map(specifier), newest!)) {
  check(`${one} is private`, problem === undefined ? "it can be imported" : undefined)
}
for (const runtime of nodes) {
  const { ok, out } = await run(runtime, ["node_modules/floodgate/dist/bin.js", "--version"], newest!)
  check(`the command runs on Node ${await versionAt(runtime)}`, ok && out.includes(manifest.version) ? undefined : out)
}

rmSync(temp, { recursive: true, force: true })
console.log(failed === 0 ? "pack: all ok" : `pack: ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
