import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A command by its program, and the arguments that are always the same. */
export const programAt = (program: string, first: ReadonlyArray<string> = []) => {
  /** Starts the command as a process, which ends with the test. */
  const start = (cwd: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) => {
    const child = spawn(program, [...first, ...args], {
      cwd,
      env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? "", ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (chunk) => (stdout += chunk))
    child.stderr.on("data", (chunk) => (stderr += chunk))
    const ended = new Promise<Ran>((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })))
    return { child, ended, output: () => stdout + stderr }
  }

  /** Runs the command in a folder to its end. */
  const run = (cwd: string, args: ReadonlyArray<string>, env: Record<string, string> = {}): Effect.Effect<Ran> =>
    Effect.callback((resume) => {
      const { child, ended } = start(cwd, args, env)
      void ended.then((ran) => resume(Effect.succeed(ran)))
      return Effect.sync(() => child.kill("SIGKILL"))
    })

  return { run, start }
}

/** A command by the file that runs it. */
export const commandAt = (bin: string) => programAt(process.execPath, ["--conditions=@floodgate/source", bin])

/** `floodgate-gateway`. */
export const { run, start } = commandAt(Path.resolve(import.meta.dirname, "../../src/command/bin.ts"))

/** A temporary folder. The command runs in `inside`, and must not change anything beside it. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const root = Fs.mkdtempSync(Path.join(Os.tmpdir(), "floodgate-security-"))
    const inside = Path.join(root, "inside")
    Fs.mkdirSync(Path.join(inside, "docs"), { recursive: true })
    Fs.writeFileSync(Path.join(inside, "docs", "one.txt"), "The first document.")
    return { root, inside }
  }),
  ({ root }) => Effect.sync(() => Fs.rmSync(root, { recursive: true, force: true }))
)

/** All files below a folder, by their paths from there. */
export const filesIn = (root: string): ReadonlyArray<string> =>
  Fs.readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => Path.relative(root, Path.join(entry.parentPath, entry.name)))
    .sort()
