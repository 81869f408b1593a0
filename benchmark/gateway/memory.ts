/** The memory of the installed command with streams that do not end and calls that wait. */
import { type Client } from "@effect/platform-node/Undici"
import { body } from "./cells.ts"
import { call, connect } from "./load.ts"
import { installed, isInstalled, memoryOf } from "./processes.ts"

const [streams, waiting] = [500, 1_000]

/** In MB: at first, and with streams and waiting calls whose requests have about so many bytes. */
const held = async (size: number, upstream: string): Promise<readonly [number, number]> => {
  const gateway = await installed(upstream, ["--concurrency", String(streams)])
  const atFirst = memoryOf(gateway)
  const clients: ReadonlyArray<Client> = connect(gateway, streams + waiting)
  const sent = body("endless", size, true)
  let failed: unknown
  for (const client of clients) void call(client, gateway, sent).catch((error) => (failed ??= error))
  const opened = async (): Promise<number> =>
    Number(/^floodgate_gateway_open (\d+)/m.exec(await (await fetch(`${gateway.url}/metrics`)).text())?.[1])
  while ((await opened()) < streams + waiting) {
    if (failed !== undefined) throw failed
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const then = memoryOf(gateway)
  gateway.child!.kill("SIGKILL")
  return [atFirst, then]
}

/** A line for each size of requests. */
export const memory = async (upstream: string): Promise<ReadonlyArray<string>> => {
  if (!isInstalled()) return ["memory: not measured, because the command is not built (npm run build)"]
  const lines: Array<string> = []
  for (const kilobytes of [2, 100]) {
    const [atFirst, then] = await held(kilobytes * 1_000, upstream)
    lines.push(
      `memory of the command: ${atFirst.toFixed(0)} MB at first, ${then.toFixed(0)} MB with ${streams} streams and ${waiting} calls that wait, of ${kilobytes} KB each`
    )
  }
  return lines
}
