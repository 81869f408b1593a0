/**
 * Builds the gateway as one executable for this platform, which needs neither Node nor npm: a single bundle of the sources, their
 * packages and the client of Redis, inside a copy of the Node that runs this script. It needs no build and no network.
 *
 *     npm run executable    writes executable/floodgate-gateway and executable/LICENSES.txt
 *
 * Each platform needs a machine of its own, because the code is compiled for the Node that it is in.
 */
import { execFileSync } from "node:child_process"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { dirname, join } from "node:path"
import { bundle, licences } from "./bundle.ts"

const root = join(import.meta.dirname, "..")
const modules = join(root, "node_modules")

const isLinux = process.platform === "linux"
const isMac = process.platform === "darwin"

/** Where it is built. Git ignores the folder. */
const folder = join(root, "executable")

/** The executable of this platform. */
export const executable = join(folder, process.platform === "win32" ? "floodgate-gateway.exe" : "floodgate-gateway")

/** The flags of V8 with which it starts, as in docs/gateway/floodgate.service. */
export const flags = ["--max-semi-space-size=8"]

/** Node names the fuse in its own documentation of single executables: the loader sees by it that there is a bundle. */
const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2"

/** The licence of Node is beside it, or in the package of it. */
const licenceOfNode = (): string => {
  const here = dirname(process.execPath)
  const installed = join(modules, "node/node_modules")
  const packages = existsSync(installed) ? readdirSync(installed).map((name) => join(installed, name)) : []
  const found = [here, dirname(here), ...packages.filter((at) => /node-(bin-)?(linux|darwin|win)-/.test(at))]
    .map((at) => join(at, "LICENSE"))
    .find(existsSync)
  if (found === undefined) throw new Error(`no LICENSE of Node beside ${process.execPath}: run npm ci`)
  return readFileSync(found, "utf8")
}

/** Runs a tool, whose output matters only if it fails. */
const run = (command: string, args: ReadonlyArray<string>): void => {
  execFileSync(command, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] })
}

/** Removes the symbols, which are a seventh of the size and only for debuggers. A machine without binutils keeps them. */
const strip = (): void => {
  try {
    run("strip", [executable])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
  }
}

/** Puts the bundle into a copy of Node. */
const inject = (blob: string): void => {
  copyFileSync(process.execPath, executable)
  chmodSync(executable, 0o755)
  if (isLinux) strip()
  // A changed program needs a new signature, or macOS ends it.
  if (isMac) run("codesign", ["--remove-signature", executable])
  const segment = isMac ? ["--macho-segment-name", "NODE_SEA"] : []
  const postject = join(modules, "postject/dist/cli.js")
  run(process.execPath, [postject, executable, "NODE_SEA_BLOB", blob, "--sentinel-fuse", fuse, ...segment])
  if (isMac) run("codesign", ["--sign", "-", executable])
}

const build = async (): Promise<void> => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const main = "floodgate-gateway.cjs"
  const output = { file: join(folder, main), format: "cjs", codeSplitting: false } as const
  const packages = await bundle(["ioredis", "@node-rs/xxhash"], output)
  const licence = { [`Node.js ${process.version}`]: licenceOfNode() }
  writeFileSync(join(folder, "LICENSES.txt"), licences(packages, licence))
  const config = { main, output: "blob", execArgv: flags, disableExperimentalSEAWarning: true, useCodeCache: true }
  writeFileSync(join(folder, "sea.json"), JSON.stringify(config))
  run(process.execPath, ["--experimental-sea-config", "sea.json"])
  inject("blob")
  for (const part of ["sea.json", "blob", main]) rmSync(join(folder, part))
  const megabytes = Math.round(statSync(executable).size / 1e6)
  console.log(`${executable}: ${megabytes} MB, of Node ${process.version} and ${packages.length} packages`)
}

if (import.meta.main) await build()
