/**
 * Packs all packages as npm would publish them, and uses them as their users do. It needs a build (`npm run build`), but no
 * network.
 *
 * 1. The tarballs hold what they must and nothing else, npm would publish them (`npm publish --dry-run`), and the library
 *    depends on nothing but its peers.
 * 2. Every subpath of `exports` loads where only its own dependencies are installed; private ones do not.
 * 3. A strict TypeScript project (`exactOptionalPropertyTypes`, no `skipLibCheck`) compiles against all of them, with the
 *    oldest version of the SDK that the package asks for, one in between, and the newest. Its declarations name public
 *    modules only, whatever it exports of the library.
 * 4. The compiled program runs with each.
 * 5. So does one over a provider of its own without the SDK, with and without `skipLibCheck`.
 * 6. The programs of README.md compile and run in both.
 * 7. The gateway's command runs from a project that has nothing but it, so without `effect`.
 * 8. The command runs from a project that has nothing but it: its version, a storm, and a run over a document. So it does where
 *    the lab was left out (`--omit=optional`): a command of the lab then says what to install.
 *
 *     node scripts/packCheck.ts                     with links to this project's node_modules
 *     node scripts/packCheck.ts --install           with `npm install TARBALL`, from npm's cache where it can
 *     node scripts/packCheck.ts --node /path/node   also with this Node; may be repeated
 */
import { execFile, spawn } from "node:child_process"
import {
  copyFileSync,
  existsSync,
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
import ts from "typescript6"
import { linksIn } from "../test/support/links.ts"
import { declared, everyName } from "./everyName.ts"
import { type Program, readmePrograms } from "./readmePrograms.ts"

const root = join(import.meta.dirname, "..")
const cliRoot = join(root, "packages/cli")
/** Packages that programs import beside the library. */
const others = ["gateway", "redis", "lab"]
const modules = join(root, "node_modules")
const temp = mkdtempSync(join(tmpdir(), "floodgate-pack-"))
const args = process.argv.slice(2)
const nodes = [process.execPath, ...args.filter((_, index) => args[index - 1] === "--node")]
let failed = 0

interface Manifest {
  readonly version: string
  readonly bin?: Record<string, string>
  readonly exports: Record<string, unknown>
  readonly dependencies?: Record<string, string>
  readonly peerDependencies?: Record<string, string>
  readonly peerDependenciesMeta?: Record<string, { readonly optional?: boolean }>
  readonly devDependencies: Record<string, string>
}

const manifestIn = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
const manifest = manifestIn(root)
const cliManifest = manifestIn(cliRoot)

const check = (name: string, problem: string | undefined): void => {
  if (problem !== undefined) failed++
  console.log(problem === undefined ? `ok    ${name}` : `FAIL  ${name}\n${problem}`)
}

const run = (
  command: string,
  list: ReadonlyArray<string>,
  cwd: string,
  env: NodeJS.ProcessEnv = process.env
): Promise<{ readonly out: string; readonly ok: boolean }> =>
  new Promise((resolve) => {
    execFile(command, list, { cwd, env, encoding: "utf8", maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      const text = `${stdout}${stderr}`.trim()
      resolve({ out: text === "" && error !== null ? String(error) : text, ok: error === null })
    })
  })

const versionAt = async (runtime: string): Promise<string> => (await run(runtime, ["--version"], root)).out

/** Imports modules in a folder, all in one process. Returns Node's error for each by name, or undefined. */
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
const everything = ["effect", sdk, node, "redis"]

/** The subpaths that need more than `effect`. */
const needs: Readonly<Record<string, ReadonlyArray<string>>> = {
  "./providers/Anthropic": ["effect", sdk],
  "./testing/server": ["effect", node]
}

/** Subpaths that only name the package that replaces them. */
const moved = ["./gateway", "./redis"]

const isPublic = (file: string): boolean => /^[A-Z]\w*\.ts$/.test(file)
const subpaths = [
  ".",
  ...Object.entries(manifest.exports)
    .filter(([name, target]) => target !== null && !/\*|^\.$|^\.\/package\.json$/.test(name) && !moved.includes(name))
    .map(([name]) => name),
  ...readdirSync(join(root, "src"))
    .filter(isPublic)
    .map((file) => `./${file.slice(0, -3)}`)
]
const forbidden = ["./pacing/pacer", "./budget/make", "./index", "./testing/engine", "./dist/index.js"]

const specifier = (subpath: string): string => `floodgate${subpath.slice(1)}`

// -----------------------------------------------------------------------------
// The tarballs
// -----------------------------------------------------------------------------

interface Packed {
  readonly tarball: string
  /** Where its files are unpacked. */
  readonly unpacked: string
}

/** Packs a package and checks the contents of its tarball. */
const pack = async (name: string, folder: string, wanted: RegExp, needed: ReadonlyArray<string>): Promise<Packed> => {
  const packed = await run("npm", ["pack", "--silent", "--pack-destination", temp], folder)
  if (!packed.ok) {
    console.error(packed.out)
    process.exit(1)
  }
  const tarball = join(temp, packed.out.split("\n").at(-1) ?? "")
  const unpacked = join(temp, `unpacked-${name}`)
  mkdirSync(unpacked)
  await run("tar", ["-xzf", tarball, "-C", unpacked, "--strip-components=1"], temp)
  const files = readdirSync(unpacked, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(unpacked.length + 1))
  check(
    `the tarball of ${name} holds sources, their build and its papers, nothing else`,
    files.find((file) => !wanted.test(file))
  )
  check(
    `and all of them`,
    needed.find((file) => !files.includes(file))
  )
  const lost = files
    .filter((file) => file.endsWith(".map"))
    .find((file) => {
      const { sources } = JSON.parse(readFileSync(join(unpacked, file), "utf8")) as { sources: ReadonlyArray<string> }
      return sources.some((source) => !files.includes(join(dirname(file), source)))
    })
  check("every source map leads to a source in the tarball", lost)
  const pages = files.filter((file) => file.endsWith(".md"))
  const broken = pages.flatMap((page) =>
    linksIn(readFileSync(join(unpacked, page), "utf8"))
      .map((link) => link.replace(/[#?].*$/, ""))
      .filter((link) => !existsSync(join(unpacked, dirname(page), link)))
      .map((link) => `${page}: ${link}`)
  )
  check("every relative link of its pages leads to a file in the tarball", broken.join("\n") || undefined)
  const linted = await run(process.execPath, [join(modules, "publint/src/cli.js"), "run", folder, "--strict"], root)
  check(`publint has no complaint about ${name}`, problemOf(linted))
  const attw = [join(modules, "@arethetypeswrong/cli/dist/index.js"), tarball, "--profile", "esm-only"]
  check(`and are the types wrong has none`, problemOf(await run(process.execPath, attw, temp)))
  // Without a registry npm only skips the comparison with published versions.
  const dry = "publish --dry-run --access public --ignore-scripts --loglevel notice --fetch-retries 0".split(" ")
  const published = await run("npm", dry, folder)
  const corrected = /npm auto-corrected.*|errors corrected.*/s.exec(published.out)?.[0]
  check("npm would publish it, and corrects nothing in its package.json", problemOf(published) ?? corrected)
  return { tarball, unpacked }
}

const library = await pack(
  "floodgate",
  root,
  /^(package\.json|LICENSE|[A-Z]+\.md|docs\/.+\.(md|svg)|docs\/images\/[^/]+\.png|docs\/gateway\/.+|examples\/.+\.(md|ts|mjs)|skills\/.+\.md|src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/,
  [
    "README.md",
    "LICENSE",
    "docs/README.md",
    "examples/README.md",
    "skills/floodgate/SKILL.md",
    "dist/index.js",
    "dist/index.d.ts"
  ]
)
const extra: Record<string, Packed> = {}
for (const name of others) {
  extra[`@floodgate/${name}`] = await pack(
    `@floodgate-${name}`,
    join(root, "packages", name),
    /^(package\.json|LICENSE|dist\/program\/LICENSES\.txt|[A-Z]+\.md|src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/,
    ["README.md", "LICENSE", "dist/index.js", "dist/index.d.ts"]
  )
}
const cli = await pack(
  "@floodgate-cli",
  cliRoot,
  /^(package\.json|LICENSE|[A-Z]+\.md|src\/.+\.ts|dist\/.+\.(js|d\.ts)(\.map)?)$/,
  ["README.md", "LICENSE", "dist/entry.js", "dist/lab.js", "dist/lab.d.ts"]
)
check(
  "the library has no dependencies besides its peers",
  Object.keys(manifest.dependencies ?? {}).join(", ") || undefined
)

// -----------------------------------------------------------------------------
// Consumers
// -----------------------------------------------------------------------------

/** The tested versions of the SDK, by the names of their dev dependencies. */
const sdks = [sdk, `${sdk}-between`, `${sdk}-oldest`]
const versionOf = (name: string): string => manifest.devDependencies[name]!.replace(/^npm:.*@/, "")

/** The packages that npm installs with a package: its dependencies and peers that are not optional, and theirs. */
const broughtBy = (folder: string): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (at: string): void => {
    const { dependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} } = manifestIn(at)
    const peers = Object.keys(peerDependencies).filter((name) => peerDependenciesMeta[name]?.optional !== true)
    for (const name of [...Object.keys(dependencies), ...peers]) {
      if (found.has(name)) continue
      found.add(name)
      if (name === "floodgate") visit(root)
      else visit([join(at, "node_modules", name), join(modules, name)].find(existsSync)!)
    }
  }
  visit(folder)
  return found
}

const emptyProject = (name: string): string => {
  const folder = join(temp, name)
  mkdirSync(join(folder, "node_modules"), { recursive: true })
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
  return folder
}

const install = (folder: string, list: ReadonlyArray<string>): ReturnType<typeof run> =>
  run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", ...list], folder)

/** Copies unpacked packages into a project, and links its other dependencies to this repository's. */
const link = async (
  folder: string,
  own: Readonly<Record<string, Packed>>,
  others: ReadonlyArray<string>,
  sdkName = sdk
): Promise<void> => {
  const at = (name: string): string => {
    const path = join(folder, "node_modules", name)
    mkdirSync(dirname(path), { recursive: true })
    return path
  }
  for (const [name, { unpacked }] of Object.entries(own)) await run("cp", ["-r", unpacked, at(name)], folder)
  for (const one of others) symlinkSync(join(modules, one === sdk ? sdkName : one), at(one))
}

/** A project in an empty folder with the library and only these packages beside it. */
const project = async (name: string, packages: ReadonlyArray<string>, sdkName = sdk): Promise<string> => {
  const folder = emptyProject(name)
  if (!args.includes("--install")) {
    const rest = packages.includes(node) && packages.includes("redis") ? extra : {}
    const needed = Object.keys(rest).flatMap((name) => [...broughtBy(join(modules, name))])
    const beside = new Set([...packages, ...needed.filter((name) => !/floodgate/.test(name))])
    await link(folder, { floodgate: library, ...rest }, [...beside], sdkName)
    return folder
  }
  const peers = [sdk, "effect"].filter((one) => packages.includes(one))
  const asked = peers.map((one) => `${one}@${versionOf(one === sdk ? sdkName : one)}`)
  const installed = await install(folder, [library.tarball, ...asked])
  check(`npm install beside ${asked.join(" and ")}`, problemOf(installed))
  const listed = await run("npm", ["ls", "--omit=dev", "--parseable"], folder)
  const names = listed.out
    .split("\n")
    .slice(1)
    .map((path) => path.slice(folder.length + "/node_modules/".length))
  check("it brings nothing else", names.join() === [...peers, "floodgate"].join() ? undefined : listed.out)
  // What the compiler and the optional subpaths of the program need.
  const more = packages.filter((one) => one !== sdk && one !== "effect").map((one) => `${one}@${versionOf(one)}`)
  const tarballs = more.length > 1 ? Object.values(extra).map(({ tarball }) => tarball) : []
  check("and what its optional subpaths need", problemOf(await install(folder, [...more, ...tarballs])))
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
  declaration: true,
  outDir: "out",
  rootDir: "."
}
const everyModule = [...subpaths.map(specifier), ...Object.keys(extra)]
  .map((name, index) => `export * as m${index} from "${name}"`)
  .join("\n")

/** The newest TypeScript, resolving as Node and as bundlers do, and TypeScript 6. */
const bundler = "--module ESNext --moduleResolution bundler".split(" ")
const compilers = [
  ["TypeScript 7", "typescript", []],
  ["TypeScript 7, resolving as a bundler", "typescript", ["--noEmit", ...bundler]],
  ["TypeScript 7 with skipLibCheck", "typescript", ["--noEmit", "--skipLibCheck"]],
  ["TypeScript 6", "typescript6", ["--noEmit"]]
] as const

/** The simulated provider, for programs that call one. */
const startProvider = async () => {
  const command = ["--conditions=@floodgate/source", join(cliRoot, "src/bin.ts"), "provider", "--port", "0", "--any"]
  const child = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "ignore"] })
  process.on("exit", () => child.kill("SIGTERM"))
  const line = await new Promise<string>((resolve) => child.stdout.once("data", (data: Buffer) => resolve(`${data}`)))
  return /http:\S+/.exec(line)![0]
}
const providerUrl = await startProvider()

/** The oldest supported TypeScript. It comes from a registry, because as a dependency its `tsc` would replace the newest one. */
const oldestTypeScript = "5.9.3"

const checkOldestTypeScript = async (folder: string, beside: string): Promise<void> => {
  if (!args.includes("--install")) return
  check(
    `npm install of TypeScript ${oldestTypeScript}`,
    problemOf(await install(folder, [`typescript@${oldestTypeScript}`]))
  )
  for (const flags of [[], ["--skipLibCheck"]]) {
    const compiled = await run(process.execPath, ["node_modules/typescript/bin/tsc", "--noEmit", ...flags], folder)
    check(
      ["a strict project compiles", beside, "with TypeScript", oldestTypeScript, ...flags].join(" "),
      problemOf(compiled)
    )
  }
}

const fileOf = (index: number): string => `readme-${index + 1}.ts`

/** Saves the programs of the README in a project. */
const saveReadme = (folder: string, programs: ReadonlyArray<Program>): void => {
  for (const [index, { text }] of programs.entries()) writeFileSync(join(folder, fileOf(index)), text)
}

/** Runs the programs of the README as its reader does. */
const runReadme = async (folder: string, programs: ReadonlyArray<Program>, hasSdk: boolean): Promise<void> => {
  const env = { ...process.env, ANTHROPIC_API_KEY: "any", ANTHROPIC_BASE_URL: providerUrl, NO_COLOR: "1" }
  for (const runtime of nodes) {
    for (const [index, { loadsSdk }] of programs.entries()) {
      const ran = await run(runtime, [fileOf(index)], folder, env)
      const says = !loadsSdk || (hasSdk ? /^\[.*A simulated answer/s : /npm install @anthropic-ai\/sdk/).test(ran.out)
      const name = `program ${index + 1} of the README ${hasSdk ? "with" : "without"} the SDK`
      check(`${name} runs on Node ${await versionAt(runtime)}`, says ? problemOf(ran) : ran.out || "it printed nothing")
    }
  }
}

/** Checks that a project can re-export every public name without a type annotation. */
const checkEveryName = (folder: string): void => {
  mkdirSync(join(folder, "every"))
  const files = [...everyName()].map(([name, text]) => {
    const file = join(folder, "every", `${name.replaceAll("/", "-")}.ts`)
    writeFileSync(file, text)
    return file
  })
  const { options } = ts.convertCompilerOptionsFromJson({ ...compilerOptions, skipLibCheck: true }, folder)
  const { names, problems } = declared(files, { ...options, configFilePath: join(folder, "tsconfig.json") })
  const open = new Set([...subpaths.map(specifier), ...Object.keys(extra)])
  // For types that the lab takes from `floodgate/testing`, TypeScript names the files of its namespaces, if nothing else of the program
  // imports the module.
  const known = ["models", "ProviderSim", "Sessions"].map((name) => `floodgate/testing/${name}`)
  const hidden = [...names].filter((name) => !open.has(name) && !known.includes(name))
  check("every public name can be exported without its type", problems.join("\n") || undefined)
  check("and the declarations name public modules only", hidden.join("\n") || undefined)
}

/** Compiles and runs a strict project with one version of the SDK. */
const checkConsumer = async (name: string): Promise<string> => {
  const beside = `beside the SDK ${versionOf(name)}`
  const consumer = await project(`consumer-${versionOf(name)}`, [...everything, "@types/node"], name)
  writeFileSync(join(consumer, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }))
  writeFileSync(join(consumer, "everything.ts"), everyModule)
  for (const file of ["consumer.ts", "names.ts"]) {
    copyFileSync(join(root, "test/packaging", file), join(consumer, file))
  }

  const programs = name === sdk ? readmePrograms() : []
  saveReadme(consumer, programs)
  for (const [compiler, folder, flags] of name === sdk ? compilers : compilers.slice(0, 1)) {
    const compiled = await run(process.execPath, [join(modules, folder, "bin/tsc"), ...flags], consumer)
    check(`a strict project compiles ${beside} with ${compiler}`, problemOf(compiled))
  }
  const named = readFileSync(join(consumer, "out/names.d.ts"), "utf8").matchAll(/import\("(@?floodgate\/?[^"]*)"\)/g)
  const hidden = [...new Set([...named].map(([, name]) => name!))].filter(
    (name) => !subpaths.map(specifier).includes(name) && !(name in extra)
  )
  check(`its declarations name public modules only ${beside}`, hidden.length === 0 ? undefined : hidden.join())
  if (name === sdk) checkEveryName(consumer)
  for (const runtime of nodes) {
    const { out } = await run(runtime, ["out/consumer.js"], consumer)
    const problem = out === "4 message_stop true 0" ? undefined : out || "it printed nothing"
    check(`its program runs ${beside} on Node ${await versionAt(runtime)}`, problem)
  }
  for (const [one, problem] of await imported(process.execPath, Object.keys(extra), consumer)) {
    check(`${one} loads ${beside}`, problem)
  }
  for (const [one, problem] of await imported(process.execPath, moved.map(specifier), consumer)) {
    const wanted = `npm install @${one}`
    check(
      `${one} says which package to install`,
      problem?.includes(wanted) === true ? undefined : (problem ?? "it loads")
    )
  }
  await runReadme(consumer, programs, true)
  if (name === sdk) await checkOldestTypeScript(consumer, beside)
  return consumer
}

/** Compiles and runs a strict project without the SDK. */
const checkWithoutSdk = async (): Promise<void> => {
  const folder = await project("without-sdk", ["effect", "@types/node"])
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }))
  const alone = subpaths.filter((subpath) => !(subpath in needs) || needs[subpath]!.includes(sdk))
  writeFileSync(
    join(folder, "everything.ts"),
    alone.map((subpath, index) => `export * as m${index} from "${specifier(subpath)}"`).join("\n")
  )
  copyFileSync(join(root, "test/packaging/withoutSdk.ts"), join(folder, "withoutSdk.ts"))
  const programs = readmePrograms().filter(({ importsSdk }) => !importsSdk)
  saveReadme(folder, programs)
  for (const [compiler, at, flags] of [
    ...compilers,
    [
      "TypeScript 7 with skipLibCheck, resolving as a bundler",
      "typescript",
      ["--noEmit", "--skipLibCheck", ...bundler]
    ],
    ["TypeScript 6 with skipLibCheck", "typescript6", ["--noEmit", "--skipLibCheck"]]
  ] as const) {
    const compiled = await run(process.execPath, [join(modules, at, "bin/tsc"), ...flags], folder)
    check(`a strict project compiles without the SDK with ${compiler}`, problemOf(compiled))
  }
  for (const runtime of nodes) {
    const { out } = await run(runtime, ["out/withoutSdk.js"], folder)
    const isWanted = /^1 heard; streamed; LlmClient\.layer needs .*: npm install @anthropic-ai\/sdk$/.test(out)
    check(`its program runs without the SDK on Node ${await versionAt(runtime)}`, isWanted ? undefined : out)
  }
  await runReadme(folder, programs, false)
  await checkOldestTypeScript(folder, "without the SDK")
}

// In parallel, because compilers take most of the time.
const [[newest]] = await Promise.all([Promise.all(sdks.map(checkConsumer)), checkWithoutSdk()])
for (const [one, problem] of await imported(process.execPath, forbidden.map(specifier), newest!)) {
  check(`${one} is private`, problem === undefined ? "it can be imported" : undefined)
}

// -----------------------------------------------------------------------------
// The commands
// -----------------------------------------------------------------------------

/** Starts an installed gateway, and asks whether it is alive. Returns what is wrong. */
const started = async (runtime: string, bin: string, cwd: string): Promise<string | undefined> => {
  const child = spawn(runtime, [bin, "--port", "0"], { cwd, stdio: ["ignore", "pipe", "pipe"] })
  let said = ""
  child.stderr.on("data", (data) => (said += String(data)))
  const url = await new Promise<string | undefined>((resolve) => {
    child.on("close", () => resolve(undefined))
    child.stdout.on("data", (data) => resolve(/http:\/\/[\d.:]+/.exec(String(data))?.[0]))
  })
  const status = url && (await fetch(`${url}/healthz`)).status
  child.kill()
  return status === 200 ? undefined : `${url}/healthz: ${status}\n${said}`
}

/** Installs the gateway alone, and runs its command. */
const checkGateway = async (): Promise<void> => {
  const gateway = extra["@floodgate/gateway"]!
  const brought = [...broughtBy(join(root, "packages/gateway"))]
  // The transport of the library, which programs import. Its command is a bundle.
  const strangers = brought.filter((name) => name !== "undici")
  check("the gateway brings undici, and nothing else", strangers.join() || undefined)
  const folder = emptyProject("gateway")
  if (args.includes("--install")) {
    check("npm install of the gateway", problemOf(await install(folder, [gateway.tarball])))
    const installed = readdirSync(join(folder, "node_modules")).filter((name) => !name.startsWith("."))
    check("and of nothing else", installed.join() === "@floodgate,undici" ? undefined : installed.join())
  } else {
    await link(folder, { "@floodgate/gateway": gateway }, brought)
  }
  const installed = join(folder, "node_modules/@floodgate/gateway")
  const bin = join(installed, manifestIn(installed).bin!["floodgate-gateway"]!)
  for (const runtime of nodes) {
    const on = `on Node ${await versionAt(runtime)}`
    const version = await run(runtime, [bin, "--version"], folder)
    check(`floodgate-gateway starts ${on}`, version.out.includes(manifest.version) ? undefined : version.out)
    const help = await run(runtime, [bin, "--help"], folder)
    check(`it prints its help ${on}`, help.out.includes("--upstream <name=url>") ? undefined : help.out)
    check(`it answers ${on}`, await started(runtime, bin, folder))
    const shared = await run(runtime, [bin, "--port", "0", "--redis", "redis://127.0.0.1:1"], folder)
    const line = /a budget in Redis needs a client, .* npm install redis/.test(shared.out.replaceAll("\n", " "))
    check(`it says what a shared budget needs ${on}`, line && !shared.ok ? undefined : shared.out)
  }
}
await checkGateway()

/** Installs the command, with the lab or without it. */
const commandIn = async (name: string, hasLab: boolean): Promise<string> => {
  const folder = emptyProject(name)
  const own = { floodgate: library, "@floodgate/cli": cli, ...extra }
  if (!hasLab) delete (own as Record<string, Packed>)["@floodgate/lab"]
  if (args.includes("--install")) {
    const tarballs = Object.values(own).map(({ tarball }) => tarball)
    check(
      `npm install of ${name}`,
      problemOf(await install(folder, [...tarballs, ...(hasLab ? [] : ["--omit=optional"])]))
    )
  } else {
    const roots = Object.keys(own).map((one) => (one === "floodgate" ? root : join(modules, one)))
    const brought = new Set(roots.flatMap((at) => [...broughtBy(at)]))
    await link(
      folder,
      own,
      [...brought].filter((one) => !/floodgate/.test(one))
    )
  }
  writeFileSync(join(folder, "note.txt"), "The budget is shared by all agents.")
  return folder
}

const bin = "node_modules/@floodgate/cli/dist/entry.js"
const [whole, bare] = [await commandIn("command", true), await commandIn("command-without-lab", false)]
for (const runtime of nodes) {
  const on = `on Node ${await versionAt(runtime)}`
  for (const folder of [whole, bare]) {
    const where = `${on}, ${folder === whole ? "with" : "without"} the lab`
    const version = await run(runtime, [bin, "--version"], folder)
    check(`the command starts ${where}`, version.out.includes(cliManifest.version) ? undefined : version.out)
    const help = await run(runtime, [bin, "--help"], folder)
    check(`it lists its commands ${where}`, /^ {2}storm +\S/m.test(help.out) ? problemOf(help) : help.out)
    const args = ["run", "note.txt", "--prompt", "Say what it is", "--agents", "1", "--out", `out-${on}`]
    const ran = await run(runtime, [bin, ...args], folder)
    const isWritten = existsSync(join(folder, `out-${on}`, "summary.md"))
    check(`it runs agents over documents ${where}`, isWritten ? problemOf(ran) : ran.out)
    const gateway = await run(runtime, [bin, "gateway", "--help"], folder)
    check(`it has the gateway ${where}`, problemOf(gateway))
  }
  const storm = await run(runtime, [bin, "storm", "--strategy", "oracle", "--report", "storm.html"], whole)
  check(`it simulates, and draws a report ${on}`, problemOf(storm))
  for (const command of [["storm"], ["run", "note.txt", "--prompt", "x", "--report", "report.html"]]) {
    const { ok, out } = await run(runtime, [bin, ...command], bare)
    const says = !ok && /npm install @floodgate\/lab/.test(out)
    check(`without the lab, ${command[0]} says what to install ${on}`, says ? undefined : out)
  }
  const lab = (await imported(runtime, ["@floodgate/cli/lab"], whole)).get("@floodgate/cli/lab")
  check(`@floodgate/cli/lab still loads ${on}`, lab)
}

rmSync(temp, { recursive: true, force: true })
console.log(failed === 0 ? "pack: all ok" : `pack: ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
