/**
 * Installs the dependencies before a script that needs them, and prints nothing if none is missing. It is plain JavaScript,
 * because in a fresh clone an older Node may run it, which cannot run TypeScript.
 */
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..")
const read = (/** @type {string} */ file) => JSON.parse(readFileSync(join(root, file), "utf8"))

/** Whether each direct dependency is installed in the locked version. */
const isSetUp = () => {
  const { packages } = read("package-lock.json")
  const direct = Object.entries(packages)
    .filter(([path]) => !path.includes("node_modules"))
    .flatMap(([, { dependencies, devDependencies, optionalDependencies }]) =>
      Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies })
    )
  try {
    return direct.every((name) => {
      const { link, version } = packages[`node_modules/${name}`]
      const installed = read(`node_modules/${name}/package.json`)
      return link === true || installed.version === version
    })
  } catch {
    return false
  }
}

if (!isSetUp()) {
  const start = performance.now()
  const seconds = () => `${Math.round((performance.now() - start) / 1000)} s`
  const isTerminal = process.stderr.isTTY
  process.stderr.write("Installing the dependencies with npm ci, which takes about a minute\n")
  const progress = setInterval(
    () => process.stderr.write(isTerminal ? `\r  ${seconds()}` : `  ${seconds()}\n`),
    isTerminal ? 1_000 : 10_000
  )
  const npm = spawn("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    shell: process.platform === "win32",
    stdio: ["ignore", "ignore", "inherit"]
  })
  npm.on("error", (error) => process.stderr.write(`${error.message}\n`))
  npm.on("close", (code) => {
    clearInterval(progress)
    const start = isTerminal ? "\r" : ""
    if (code === 0) process.stderr.write(`${start}Installed after ${seconds()}\n\n`)
    else process.stderr.write(`${start}npm ci failed. Run it by itself to see why: npm ci --loglevel=notice\n`)
    process.exitCode = code ?? 1
  })
}
