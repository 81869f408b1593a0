/** The servers of a benchmark, each a process of its own. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { bring, checkOut, resolved } from "../support/checkouts.ts"

export interface Server {
  readonly name: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** The process, or undefined where there is no proxy. */
  readonly child: ChildProcess | undefined
}

const children = new Set<ChildProcess>()

/** Ends all servers. */
export const end = (): void => {
  for (const child of children) child.kill("SIGKILL")
  children.clear()
}
process.once("exit", end)
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130))

/** Starts a program that prints its address. */
export const start = async (
  name: string,
  args: ReadonlyArray<string>,
  headers: Server["headers"] = {}
): Promise<Server> => {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", 2, "ipc"] })
  children.add(child)
  const line = await new Promise((resolve, reject) => {
    child.stdout!.once("data", resolve)
    child.once("exit", (code) => reject(new Error(`${name}: its process ended with ${code}`)))
  })
  return { name, url: /http:\S+/.exec(String(line))![0], child, headers }
}

const program = "benchmark/gateway/server.ts"
const root = join(import.meta.dirname, "../..")

/** Starts a server of `server.ts`. */
export const server = (
  kind: string,
  upstream: string,
  { headers = {}, name = kind, from = root }: { headers?: Server["headers"]; name?: string; from?: string } = {}
): Promise<Server> => start(name, [...process.execArgv, join(from, program), kind, upstream], headers)

/** The gateway of another commit. Its checkout is kept for the next time. */
export const gatewayOf = (commit: string, upstream: string): Promise<Server> => {
  const name = resolved(commit)
  if (name === undefined) throw new Error(`--against ${commit}: there is no such commit here`)
  const checkout = join(root, ".bench", name)
  if (!existsSync(checkout)) checkOut(name, checkout)
  bring(checkout, program)
  return server("floodgate", upstream, { name, from: checkout })
}

const command = join(root, "packages/cli/dist/entry.js")

/** Whether `npm run build` has made the command. */
export const isInstalled = (): boolean => existsSync(command)

/** Starts the command as docs/gateway/Dockerfile and floodgate.service do. */
export const installed = (upstream: string, flags: ReadonlyArray<string>): Promise<Server> => {
  const usual = ["--max-semi-space-size=8", command, "gateway", "--port", "0", "--upstream", `anthropic=${upstream}`]
  return start("floodgate gateway", [...usual, ...flags])
}

export const hasRivals = (): boolean => existsSync(join(root, "benchmark/gateway/rivals/node_modules"))

export const portkey = (upstream: string): Promise<Server> =>
  server("@portkey-ai/gateway", upstream, {
    headers: { "x-portkey-provider": "anthropic", "x-portkey-custom-host": `${upstream}/v1` }
  })

/** Microseconds of processor time that a server has used so far. When a turn begins, its young objects are collected first. */
export const spentBy = ({ child }: Server, when: "begin" | "end"): Promise<number> => {
  if (child === undefined) return Promise.resolve(0)
  return new Promise((resolve) => {
    child.once("message", (usage) => {
      const { system, user } = usage as NodeJS.CpuUsage
      resolve(system + user)
    })
    child.send(when)
  })
}

/** The resident memory of a server, in MB. */
export const memoryOf = ({ child }: Server): number =>
  Number(execFileSync("ps", ["-o", "rss=", "-p", String(child!.pid)], { encoding: "utf8" })) / 1_024
