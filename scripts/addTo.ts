/**
 * Installs packed packages into a project with that project's own package manager. `scripts/add.ts` is the command.
 *
 * The tarballs are copied into the project's `vendor/`, so that it installs on every machine and no longer needs this clone.
 * If the installation fails or is stopped, the project is left as it was.
 */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { delimiter, dirname, join, relative, sep } from "node:path"

/** A problem with the project or the installation; the message is for the user. */
export class Refused extends Error {}

const clone = join(import.meta.dirname, "..")

export type Manager = "npm" | "pnpm" | "yarn" | "bun"

interface Tool {
  readonly add: ReadonlyArray<string>
  readonly remove: string
  readonly lockfiles: ReadonlyArray<string>
}

const tools: Readonly<Record<Manager, Tool>> = {
  pnpm: { add: ["add"], remove: "pnpm remove", lockfiles: ["pnpm-lock.yaml"] },
  yarn: { add: ["add"], remove: "yarn remove", lockfiles: ["yarn.lock"] },
  bun: { add: ["add"], remove: "bun remove", lockfiles: ["bun.lock", "bun.lockb"] },
  npm: {
    add: ["install", "--no-audit", "--no-fund"],
    remove: "npm uninstall",
    lockfiles: ["package-lock.json", "npm-shrinkwrap.json"]
  }
}

/** Files that a package manager may write besides its lockfile and node_modules. */
const settings = ["package.json", "pnpm-workspace.yaml", ".yarnrc.yml", ".pnp.cjs", ".pnp.loader.mjs"]

interface Manifest {
  readonly name?: string
  readonly packageManager?: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
}

const manifestIn = (folder: string): Manifest | undefined => {
  const file = join(folder, "package.json")
  if (!existsSync(file)) return undefined
  let manifest: unknown
  try {
    manifest = JSON.parse(readFileSync(file, "utf8"))
  } catch (error) {
    throw new Refused(`${file} is not valid JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (typeof manifest === "object" && manifest !== null && !Array.isArray(manifest)) return manifest
  throw new Refused(`${file} does not hold an object`)
}

const upwards = function* (folder: string): Generator<string> {
  yield folder
  if (dirname(folder) !== folder) yield* upwards(dirname(folder))
}

const isManager = (name: string | undefined): name is Manager => name !== undefined && Object.hasOwn(tools, name)

/** The project's package manager, and the folder that names it: for a package in a workspace, a folder above. */
const managerOf = (project: string): { readonly manager: Manager; readonly at: string } => {
  for (const at of upwards(project)) {
    const named = manifestIn(at)?.packageManager?.split("@")[0]
    if (isManager(named)) return { manager: named, at }
    for (const [manager, { lockfiles }] of Object.entries(tools)) {
      if (lockfiles.some((file) => existsSync(join(at, file)))) return { manager: manager as Manager, at }
    }
    // Folders above the repository belong to something else.
    if (existsSync(join(at, ".git"))) break
  }
  return { manager: "npm", at: project }
}

/** A package to install, as `npm pack` made it. */
export interface Packed {
  readonly name: string
  readonly version: string
  readonly tarball: string
}

/** A plan to install into one project. */
export interface Plan {
  readonly project: string
  readonly manager: Manager
  /** Where the package manager keeps its lockfile. */
  readonly at: string
  /** Peer dependencies that the project lacks, as `name@range`. */
  readonly peers: ReadonlyArray<string>
}

/** The major version of a range such as `^4.1.0`; none of a range that may allow several. */
const majorOf = (range: string): string | undefined => /^[\^~]?(\d+)(?:\.[\w.+-]*)?$/.exec(range.trim())?.[1]

/** Plans an installation; throws {@link Refused} if nothing can be installed there. */
export const planFor = (target: string, peers: Readonly<Record<string, string>>): Plan => {
  if (!existsSync(target) || !statSync(target).isDirectory())
    throw new Refused(`there is no folder ${target}: make one and run npm init -y there first`)
  const project = realpathSync(target)
  if (`${project}${sep}`.startsWith(`${realpathSync(clone)}${sep}`)) {
    throw new Refused("this is Floodgate's own clone: name the folder of your program")
  }
  const manifest = manifestIn(project)
  if (manifest === undefined) throw new Refused(`${project} has no package.json: run npm init -y there first`)
  const has = { ...manifest.devDependencies, ...manifest.dependencies }
  for (const [name, range] of Object.entries(peers)) {
    const found = has[name] ?? range
    const major = majorOf(found)
    if (major !== undefined && major !== majorOf(range)) {
      throw new Refused(
        `${project} has ${name} ${found}, but Floodgate needs ${range}: upgrade it there first, or use the gateway, which works beside any version`
      )
    }
  }
  const missing = Object.entries(peers).filter(([name]) => !Object.hasOwn(has, name))
  return { project, ...managerOf(project), peers: missing.map(([name, range]) => `${name}@${range}`) }
}

/** A path in `vendor/`. The name has a hash, because package managers cache what they unpacked by file name. */
const vendored = ({ name, tarball, version }: Packed): string => {
  const hash = createHash("sha256").update(readFileSync(tarball)).digest("hex").slice(0, 8)
  return `vendor/${name.replace("@", "").replace("/", "-")}-${version}-${hash}.tgz`
}

/** Whether a file in `vendor/` is a tarball of this package, of any version. */
const isOf = ({ name }: Packed, file: string): boolean =>
  new RegExp(`^${name.replace("@", "").replace("/", "-")}-\\d+\\.\\d+\\.[^/]*-[0-9a-f]{8}\\.tgz$`).test(file)

/** The command that installs, to be run in the project's folder. */
export const commandOf = (plan: Plan, specifiers: ReadonlyArray<string>): ReadonlyArray<string> => [
  plan.manager,
  ...tools[plan.manager].add,
  ...specifiers,
  ...plan.peers
]

/** Whether npm added a folder to the path for this clone's scripts: `node_modules/.bin` here and in each folder above. */
const isOfClone = (folder: string): boolean =>
  folder.includes("node-gyp-bin") || [...upwards(clone)].some((at) => folder === join(at, "node_modules", ".bin"))

/**
 * The environment of the user's shell, without what npm adds for the running script: options such as `--silent`, this
 * clone's `node` in the path, and the folder to install into.
 */
export const shellEnvironment = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(
    Object.entries(env).filter(
      ([name]) =>
        !/^(npm_(lifecycle|package|command|execpath|node_execpath)|npm_config_(local_prefix|loglevel|user_agent)$|INIT_CWD$|NODE$)/.test(
          name
        )
    )
  ),
  PATH: (env["PATH"] ?? "")
    .split(delimiter)
    .filter((folder) => !isOfClone(folder))
    .join(delimiter)
})

/** Remembers the contents of files; the returned function restores them. */
const keep = (files: ReadonlyArray<string>): (() => void) => {
  const before = files.map((file) => [file, existsSync(file) ? readFileSync(file) : undefined] as const)
  return () => {
    for (const [file, content] of before) {
      if (content !== undefined) writeFileSync(file, content)
      else rmSync(file, { force: true })
    }
  }
}

/** Runs a command to its end; fails if the signal stops it. */
const run = (command: ReadonlyArray<string>, cwd: string, signal: AbortSignal): Promise<void> =>
  new Promise((done, fail) => {
    const [name = "", ...args] = command
    const child = spawn(name, args, {
      cwd,
      env: shellEnvironment(process.env),
      shell: process.platform === "win32",
      stdio: ["ignore", "inherit", "inherit"]
    })
    const stop = (): void => void child.kill("SIGTERM")
    signal.addEventListener("abort", stop)
    child.on("error", (error: NodeJS.ErrnoException) =>
      fail(error.code === "ENOENT" ? new Refused(`your project uses ${name}, which is not installed`) : error)
    )
    child.on("close", (code) => {
      signal.removeEventListener("abort", stop)
      if (signal.aborted) fail(new Refused("stopped"))
      else if (code === 0) done()
      else fail(new Refused(`${command.join(" ")} failed with code ${code}`))
    })
  })

/** The changes of an installation. */
export interface Added {
  readonly files: ReadonlyArray<string>
  readonly undo: string
}

/** Copies the tarballs into the project and installs them with its package manager. If that fails, it throws and changes nothing. */
export const addTo = async (plan: Plan, packed: ReadonlyArray<Packed>, signal: AbortSignal): Promise<Added> => {
  const { at, manager, project } = plan
  const vendor = join(project, "vendor")
  const had = { vendor: existsSync(vendor), modules: existsSync(join(project, "node_modules")) }
  const places = [...new Set([project, at])]
  const files = packed.map(vendored)
  const restore = keep([
    ...places.flatMap((place) => [...settings, ...tools[manager].lockfiles].map((file) => join(place, file))),
    ...files.map((file) => join(project, file))
  ])
  try {
    mkdirSync(vendor, { recursive: true })
    for (const [index, { tarball }] of packed.entries()) copyFileSync(tarball, join(project, files[index]!))
    await run(
      commandOf(
        plan,
        packed.map(({ name }, index) => `${name}@file:./${files[index]!}`)
      ),
      project,
      signal
    )
  } catch (error) {
    restore()
    if (!had.vendor && existsSync(vendor)) rmdirSync(vendor)
    if (!had.modules) rmSync(join(project, "node_modules"), { recursive: true, force: true })
    throw error
  }
  for (const file of readdirSync(vendor)) {
    if (!files.includes(`vendor/${file}`) && packed.some((one) => isOf(one, file))) rmSync(join(vendor, file))
  }
  const names = [...packed.map(({ name }) => name), ...plan.peers.map((peer) => peer.replace(/(?<=.)@.*$/, ""))]
  return { files, undo: `${tools[manager].remove} ${names.join(" ")} && rm ${files.join(" ")}` }
}

/** A folder's path as seen from another folder. */
export const fromHere = (folder: string, here: string): string => {
  const path = relative(here, folder) || "."
  return path.length < folder.length ? path : folder
}
