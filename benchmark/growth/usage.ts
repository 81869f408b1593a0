/** What processes have used so far: a Redis server, and any others by their numbers. */
import { readdirSync, readFileSync } from "node:fs"
import type { Server } from "../../packages/redis/test/server.ts"

/** The scripts that a Redis has run, and the microseconds of processor time that it has used. */
export const usageOf = async (server: Server) => {
  const info = String(await server.command("INFO", "everything"))
  const of = (name: string): number => Number(new RegExp(`^${name}:([\\d.]+)`, "m").exec(info)![1])
  const scripts = [...info.matchAll(/^cmdstat_(?:evalsha|eval|fcall):calls=(\d+)/gm)]
  return {
    scripts: scripts.reduce((sum, [, calls]) => sum + Number(calls), 0),
    micros: 1e6 * (of("used_cpu_user") + of("used_cpu_sys"))
  }
}

/** The microseconds of processor time that the threads of a process have used. Linux tells it in nanoseconds. */
export const microsOf = (pid: number): number => {
  const threads = readdirSync(`/proc/${pid}/task`)
  const nanos = threads.map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0])
  )
  return nanos.reduce((sum, each) => sum + each, 0) / 1_000
}

/** A value to that of the first row. */
export const ratio = (value: number, least: number): string => (least === 0 ? "" : (value / least).toFixed(2))
