/** Calls through a gateway: as many as its connections take, or so many a second. */
import { Client } from "@effect/platform-node/Undici"
import type { Turn } from "../support/inTurns.ts"
import type { Server } from "./processes.ts"
import { spentBy } from "./processes.ts"

const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

/** What a caller may look at while an answer comes. */
export interface Answering {
  /** Called with each piece of the answer's body. */
  readonly onData?: (chunk: Buffer) => void
}

/** Makes a call, and fails unless it is answered as a whole. */
export const call = (client: Client, to: Server, body: Buffer, { onData }: Answering = {}): Promise<void> =>
  new Promise((resolve, reject) => {
    let [status, bytes] = [0, 0]
    let said = ""
    client.dispatch(
      { path: "/v1/messages", method: "POST", headers: { ...headers, ...to.headers }, body },
      {
        onRequestStart: () => {},
        onResponseStart: (_, code) => void (status = code),
        onResponseData: (_, chunk) => {
          bytes += chunk.length
          if (status !== 200) said += chunk.toString()
          onData?.(chunk)
        },
        onResponseEnd: () => {
          if (status === 200 && bytes > 100) resolve()
          else reject(new Error(`${to.name}: status ${status}, ${bytes} bytes: ${said.slice(0, 300)}`))
        },
        onResponseError: (_, error) => reject(error)
      }
    )
  })

/** A connection each: a pool would look for a free one among all of them. */
export const connect = (to: Server, connections: number): ReadonlyArray<Client> =>
  Array.from({ length: connections }, () => new Client(to.url, { headersTimeout: 0, bodyTimeout: 0 }))

export const disconnect = async (clients: ReadonlyArray<Client>): Promise<void> => {
  await Promise.all(clients.map((client) => client.destroy()))
}

/** Calls over all connections, one after the other on each, for some seconds. Returns how many were made. */
export const repeated = async (
  clients: ReadonlyArray<Client>,
  to: Server,
  bodies: ReadonlyArray<Buffer>,
  seconds: number
): Promise<number> => {
  const until = performance.now() + seconds * 1_000
  let count = 0
  const loop = async (client: Client): Promise<void> => {
    do await call(client, to, bodies[count++ % bodies.length]!)
    while (performance.now() < until)
  }
  await Promise.all(clients.map(loop))
  return count
}

/** A closed loop. A third of the time before it opens the connections and fills caches, and is not counted. */
export const closed = async (
  to: Server,
  connections: number,
  bodies: ReadonlyArray<Buffer>,
  seconds: number
): Promise<Turn> => {
  const clients = connect(to, connections)
  await repeated(clients, to, bodies, seconds / 3)
  const before = await spentBy(to, "begin")
  const from = performance.now()
  const count = await repeated(clients, to, bodies, seconds)
  const took = (performance.now() - from) / 1_000
  const micros = (await spentBy(to, "end")) - before
  await disconnect(clients)
  return { count, micros, seconds: took }
}

/**
 * An open loop: so many calls a second, spaced at random, because evenly spaced calls or bursts would measure their own pattern.
 * Returns the delays in milliseconds, sorted. A delay counts from when its call was due. It polls instead of setting timers,
 * which are a millisecond late.
 */
export const open = async (
  to: Server,
  perSecond: number,
  bodies: ReadonlyArray<Buffer>,
  seconds: number
): Promise<ReadonlyArray<number>> => {
  const clients = connect(to, 128)
  await repeated(clients.slice(0, 16), to, bodies, seconds / 4)
  const free = [...clients]
  const due: Array<number> = []
  const delays: Array<number> = []
  let sent = 0
  const send = async (client: Client, at: number): Promise<void> => {
    await call(client, to, bodies[sent++ % bodies.length]!)
    delays.push(performance.now() - at)
    const next = due.shift()
    if (next === undefined) free.push(client)
    else await send(client, next)
  }
  const running: Array<Promise<void>> = []
  const until = performance.now() + seconds * 1_000
  let next = performance.now()
  while (next < until) {
    while (next <= performance.now() && next < until) {
      const client = free.pop()
      if (client === undefined) due.push(next)
      else running.push(send(client, next))
      next -= (Math.log(1 - Math.random()) * 1_000) / perSecond
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  await Promise.all(running)
  await disconnect(clients)
  return delays.sort((one, other) => one - other)
}

export const quantile = (sorted: ReadonlyArray<number>, part: number): number =>
  sorted[Math.floor((sorted.length - 1) * part)]!
