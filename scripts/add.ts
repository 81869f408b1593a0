/**
 * Adds Floodgate to a program while it is not on npm: builds this clone, packs it, and installs it there.
 *
 *     npm run -s add -- ../my-app
 */
import { execFile, execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { constants, tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"
import { addTo, commandOf, fromHere, type Packed, planFor, Refused, shellEnvironment } from "./addTo.ts"

const help = `npm run -s add -- <folder> [--gateway] [--redis] [--lab] [--cli] [--dry-run]

Builds and packs this clone, copies the package into <folder>/vendor, and installs it with that project's package
manager: npm, pnpm, yarn or bun, as named by "packageManager" in its package.json or by its lockfile.
If that fails or you stop it, package.json and the lockfile are as before.

  --gateway   also install @floodgate/gateway
  --redis     also install @floodgate/redis
  --lab       also install @floodgate/lab
  --cli       also install the command, as npx floodgate, and the three that it uses; npm only
  --dry-run   print what would be done
  --help      print this text`

const root = join(import.meta.dirname, "..")
/** npm runs scripts in the clone's folder, but the user's paths are relative to the folder they are in. */
const here = process.env["INIT_CWD"] ?? process.cwd()

interface Manifest {
  readonly name: string
  readonly version: string
  readonly peerDependencies: Readonly<Record<string, string>>
}
const manifestOf = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
const { peerDependencies, version } = manifestOf(root)

const argumentsOf = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        cli: { type: "boolean" },
        "dry-run": { type: "boolean" },
        gateway: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        lab: { type: "boolean" },
        redis: { type: "boolean" }
      }
    })
  } catch (error) {
    throw new Refused(`${error instanceof Error ? error.message : String(error)}\n\n${help}`)
  }
}

/** A warning if the user's own Node is too old. This script itself runs on the clone's Node. */
const nodeWarning = (folder: string): string | undefined => {
  try {
    const found = execFileSync("node", ["--version"], {
      cwd: folder,
      env: shellEnvironment(process.env),
      encoding: "utf8"
    })
    const [major = 0, minor = 0] = found.trim().slice(1).split(".").map(Number)
    if (major > 22 || (major === 22 && minor >= 19)) return undefined
    return `Your Node is ${found.trim()}; Floodgate needs 22.19 or newer: https://nodejs.org`
  } catch {
    return undefined
  }
}

/** Whether git ignores a file of the project: many a .gitignore lists *.tgz. */
const isIgnored = (project: string, file: string): boolean => {
  try {
    execFileSync("git", ["check-ignore", "--quiet", file], { cwd: project, stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

const stopping = new AbortController()
let signalled: NodeJS.Signals | undefined
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    signalled ??= signal
    stopping.abort()
  })
}

/** Runs a command in the clone; prints nothing if it succeeds. */
const inClone = (command: string, args: ReadonlyArray<string>): Promise<string> =>
  new Promise((done, fail) => {
    execFile(
      command,
      args,
      { cwd: root, encoding: "utf8", maxBuffer: 2 ** 26, signal: stopping.signal },
      (error, stdout, stderr) => {
        if (error === null) done(stdout.trim())
        else
          fail(
            new Refused(stopping.signal.aborted ? "stopped" : `${stdout}${stderr}\n${command} ${args.join(" ")} failed`)
          )
      }
    )
  })

const pack = async (folder: string, into: string): Promise<Packed> => {
  const { name, version } = manifestOf(folder)
  const out = await inClone("npm", ["pack", folder, "--silent", "--pack-destination", into])
  return { name, version, tarball: join(into, out.split("\n").at(-1)!) }
}

const main = async (): Promise<void> => {
  const { positionals, values } = argumentsOf()
  if (values.help === true) return console.log(help)
  const [target, ...others] = positionals
  if (target === undefined || others.length > 0) throw new Refused(`expected one folder\n\n${help}`)
  const plan = planFor(resolve(here, target), { effect: peerDependencies["effect"]! })
  const wanted = (["gateway", "redis", "lab", "cli"] as const).filter(
    (name) => values[name] === true || values.cli === true
  )
  const folders = [root, ...wanted.map((name) => join(root, "packages", name))]
  if (values.cli === true && plan.manager !== "npm") {
    throw new Refused(
      `--cli works with npm only, and ${target} uses ${plan.manager}: use the command in this clone, npm run -s floodgate`
    )
  }
  const app = fromHere(plan.project, here)
  if (values["dry-run"] === true) {
    const specifiers = folders.map((folder) => `${manifestOf(folder).name}@file:./vendor/...tgz`)
    console.log(`Would build and pack ${version}, copy it into ${join(app, "vendor")}, and run in ${app}:`)
    return console.log(`  ${commandOf(plan, specifiers).join(" ")}`)
  }
  const temp = mkdtempSync(join(tmpdir(), "floodgate-add-"))
  try {
    console.log("Building and packing...")
    await inClone(process.execPath, [join(root, "scripts/build.ts")])
    const packed: Array<Packed> = []
    for (const folder of folders) packed.push(await pack(folder, temp))
    const { files, undo } = await addTo(plan, packed, stopping.signal)
    console.log(`\nAdded floodgate ${version} to ${app} with ${plan.manager}:`)
    for (const file of files) console.log(`  ${join(app, file)}, to be committed with your project`)
    console.log(`Undo:   (cd ${app} && ${undo})`)
    console.log("Update: pull here, and run this again")
    const ignored = files.filter((file) => isIgnored(plan.project, file))
    if (ignored.length > 0)
      console.log(`\nYour .gitignore excludes it, so add it with: git add -f ${ignored.join(" ")}`)
    const warning = nodeWarning(plan.project)
    if (warning !== undefined) console.log(`\n${warning}`)
    console.log(`\nFirst call: ${fromHere(join(root, "docs/clients.md"), here)}`)
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
}

try {
  await main()
} catch (error) {
  if (!(error instanceof Refused)) throw error
  console.error(
    signalled === undefined ? `add: ${error.message}` : "add: stopped; package.json and the lockfile are as before"
  )
  process.exitCode = signalled === undefined ? 1 : 128 + constants.signals[signalled]
}
