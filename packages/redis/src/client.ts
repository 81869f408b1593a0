/**
 * A connection to Redis with the installed client, `redis` or `ioredis`, to a server or to its cluster.
 *
 * A client is used as long as it answers. If it fails or does not answer in time, it is closed, and the next command opens a
 * new one. So the connection does not depend on how a client reconnects.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Cluster as IoredisCluster, Redis as Ioredis } from "ioredis"
import { StoreError } from "floodgate/BudgetStore"

/** How long connecting may take. */
const connectMillis = 2_000

/** What both clients can do. */
interface OpenedClient {
  /** Sends a command to the node that serves a key. */
  readonly send: (key: string, words: ReadonlyArray<string>) => Promise<unknown>
  /** For each node that holds keys, a function that sends it a command. */
  readonly nodes: () => ReadonlyArray<(words: ReadonlyArray<string>) => Promise<unknown>>
}

/** Opens a client. The signal closes it, even while it opens: a server may accept a connection and never answer. */
type Open = (url: string, signal: AbortSignal) => Promise<OpenedClient>

/** A connection, which opens when it is used. */
export interface RedisConnection {
  readonly send: (key: string, words: ReadonlyArray<string>) => Effect.Effect<unknown, StoreError>
  /** All keys of all nodes that match a pattern. */
  readonly keys: (pattern: string) => Effect.Effect<ReadonlyArray<string>, StoreError>
}

const ignore = (): void => {}
/** Closes a client unless it has closed itself: closing it twice throws. */
const closing = (client: { readonly isOpen: boolean; readonly destroy: () => void }) => (): void => {
  if (client.isOpen) client.destroy()
}

const isCluster = (info: unknown): boolean => String(info).includes("cluster_enabled:1")

/** Opens a client of the package `redis`. */
export const openRedis: Open = async (url, signal) => {
  const { createClient, createCluster } = await import("redis")
  const options = {
    disableOfflineQueue: true,
    // Before its socket has connected, a client cannot close the socket, so the signal does.
    socket: { connectTimeout: connectMillis, reconnectStrategy: false as const, signal }
  }
  const client = createClient({ url, ...options }).on("error", ignore)
  const close = closing(client)
  signal.throwIfAborted()
  signal.addEventListener("abort", close)
  await client.connect()
  if (!isCluster(await client.sendCommand(["INFO", "cluster"]))) {
    const send = (words: ReadonlyArray<string>): Promise<unknown> => client.sendCommand([...words])
    return { send: (_, words) => send(words), nodes: () => [send] }
  }
  close()
  const { password, protocol, username } = new URL(url)
  const socket = { ...options.socket, ...(protocol === "rediss:" && { tls: true as const }) }
  const login = { username: decodeURIComponent(username), password: decodeURIComponent(password) }
  // The credentials and the protocol of the address apply to all nodes.
  const defaults = { ...options, socket, ...(password !== "" && login) }
  const cluster = createCluster({ rootNodes: [{ url }], defaults }).on("error", ignore)
  signal.throwIfAborted()
  signal.addEventListener("abort", closing(cluster))
  await cluster.connect()
  return {
    send: (key, words) => cluster.sendCommand(key, false, [...words]),
    nodes: () =>
      cluster.masters.map((node) => async (words) => (await cluster.nodeClient(node)).sendCommand([...words]))
  }
}

const ioredisSender =
  (node: Ioredis) =>
  ([command = "", ...words]: ReadonlyArray<string>): Promise<unknown> =>
    node.call(command, ...words)

const openIoredisCluster = async (
  Cluster: typeof IoredisCluster,
  url: string,
  signal: AbortSignal
): ReturnType<Open> => {
  const { hostname, password, port, protocol, username } = new URL(url)
  const cluster = new Cluster([{ host: hostname, port: Number(port || 6379) }], {
    lazyConnect: true,
    enableOfflineQueue: false,
    clusterRetryStrategy: () => null,
    redisOptions: {
      connectTimeout: connectMillis,
      ...(password !== "" && { username: decodeURIComponent(username), password: decodeURIComponent(password) }),
      ...(protocol === "rediss:" && { tls: {} })
    }
  }).on("error", ignore)
  signal.throwIfAborted()
  signal.addEventListener("abort", () => cluster.disconnect())
  await cluster.connect()
  return {
    send: (_, [command = "", ...words]) => cluster.call(command, ...words) as Promise<unknown>,
    nodes: () => cluster.nodes("master").map(ioredisSender)
  }
}

/** Opens a client of the package `ioredis`. */
export const openIoredis: Open = async (url, signal) => {
  const { Cluster, Redis } = await import("ioredis")
  const options = {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: connectMillis,
    retryStrategy: () => null
  }
  const client = new Redis(url, options)
  // The promise only says that there is no connection. The event has the reason.
  let reason: unknown
  client.on("error", (error) => (reason = error))
  signal.throwIfAborted()
  signal.addEventListener("abort", () => client.disconnect())
  await client.connect().catch((error) => {
    throw reason ?? error
  })
  if (!isCluster(await client.info("cluster"))) {
    const send = ioredisSender(client)
    return { send: (_, words) => send(words), nodes: () => [send] }
  }
  client.disconnect()
  return openIoredisCluster(Cluster, url, signal)
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND"

const openInstalled: Open = async (url, signal) => {
  try {
    return await openRedis(url, signal)
  } catch (error) {
    if (!isMissing(error)) throw error
  }
  try {
    return await openIoredis(url, signal)
  } catch (error) {
    if (!isMissing(error)) throw error
    throw new Error("no client is installed: npm install redis, or npm install ioredis", { cause: error })
  }
}

/** Errors of a server begin with a code. Some codes mean that another server is responsible. */
const isAnswer = /^[A-Z]{2,} /
const isElsewhere = /^(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|MOVED|NOREPLICAS) /

/** A connection to an address, which opens when it is used and closes with the scope. */
export const connect = (url: string, open = openInstalled): Effect.Effect<RedisConnection, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Lasting(url, open)),
    (lasting) => Effect.sync(() => lasting.close())
  )

class Lasting implements RedisConnection {
  private readonly url: string
  private readonly open: Open
  private opened: { readonly client: Promise<OpenedClient>; readonly end: AbortController } | undefined = undefined

  constructor(url: string, open: Open) {
    this.url = url
    this.open = open
  }
  readonly send: RedisConnection["send"] = (key, words) => this.use((client) => client.send(key, words))
  readonly keys: RedisConnection["keys"] = (pattern) =>
    this.use(async (client) => (await Promise.all(client.nodes().map((send) => keysOf(send, pattern)))).flat())

  /** Closes a client. A late failure of an earlier client does not close the present one. */
  close(used = this.opened): void {
    used?.end.abort()
    if (used === this.opened) this.opened = undefined
  }

  private connection(): NonNullable<Lasting["opened"]> {
    if (this.opened === undefined) {
      const end = new AbortController()
      this.opened = { client: this.open(this.url, end.signal), end }
    }
    return this.opened
  }

  private use<A>(run: (client: OpenedClient) => Promise<A>): Effect.Effect<A, StoreError> {
    return Effect.suspend(() => {
      let isOpen = false
      const used = this.connection()
      return Effect.tryPromise({
        try: async () => {
          const client = await used.client
          isOpen = true
          return run(client)
        },
        catch: (cause) => {
          const { message } = cause as Error
          if (!isOpen || !isAnswer.test(message) || isElsewhere.test(message)) this.close(used)
          return new StoreError({ cause })
        }
        // A dead connection reports no error, so a caller that gives up closes it.
      }).pipe(Effect.onInterrupt(() => Effect.sync(() => this.close(used))))
    })
  }
}

/** Reads all keys. `SCAN` returns a page and the cursor of the next page, 0 after the last. A key may come twice. */
const keysOf = async (
  send: (words: ReadonlyArray<string>) => Promise<unknown>,
  pattern: string
): Promise<ReadonlyArray<string>> => {
  const keys = new Set<string>()
  let cursor = "0"
  do {
    const reply = await send(["SCAN", cursor, "MATCH", pattern, "COUNT", "500"])
    const [next, page] = Array.isArray(reply) ? reply : ["0", []]
    cursor = String(next)
    for (const key of Array.isArray(page) ? page : []) keys.add(String(key))
  } while (cursor !== "0")
  return [...keys]
}
