/** The installed client, `redis` or `ioredis`: how it opens a server or a cluster. */
import type { Redis as Ioredis } from "ioredis"

/** How long connecting may take. */
const connectMillis = 2_000

/** Sends a command to one server. */
export type SendTo = (words: ReadonlyArray<string>) => Promise<unknown>

/** The operations of every client. */
export interface OpenedClient {
  /** Sends a command to the node that serves a key. */
  readonly send: (key: string, words: ReadonlyArray<string>) => Promise<unknown>
  /** For each node that holds keys, a function that sends it a command. */
  readonly nodes: () => ReadonlyArray<SendTo>
}

/** A client package. The signal closes what it opens, even while it opens: a server may accept a connection and never answer. */
export interface ClientPackage {
  readonly server: (url: string, signal: AbortSignal) => Promise<SendTo>
  /** The cluster that a node belongs to. The user, the password and TLS of its URL apply to all nodes. */
  readonly cluster: (url: string, signal: AbortSignal) => Promise<OpenedClient>
}

const ignore = (): void => {}
/** Closes a client unless it has closed itself: closing it twice throws. */
const closing = (client: { readonly isOpen: boolean; readonly destroy: () => void }) => (): void => {
  if (client.isOpen) client.destroy()
}

export const nodeRedis = async (): Promise<ClientPackage> => {
  const { createClient, createCluster } = await import("redis")
  const optionsOf = (signal: AbortSignal) => ({
    disableOfflineQueue: true,
    // Before its socket has connected, a client cannot close the socket, so the signal does.
    socket: { connectTimeout: connectMillis, reconnectStrategy: false as const, signal }
  })
  return {
    server: async (url, signal) => {
      const client = createClient({ url, ...optionsOf(signal) }).on("error", ignore)
      signal.throwIfAborted()
      signal.addEventListener("abort", closing(client))
      await client.connect()
      return (words) => client.sendCommand([...words])
    },
    cluster: async (url, signal) => {
      const options = optionsOf(signal)
      const { password, protocol, username } = new URL(url)
      const socket = { ...options.socket, ...(protocol === "rediss:" && { tls: true as const }) }
      const login = { username: decodeURIComponent(username), password: decodeURIComponent(password) }
      const defaults = { ...options, socket, ...(password !== "" && login) }
      // Connects to a node when it is needed, so that a dead one does not keep the pools of the others away.
      const cluster = createCluster({ rootNodes: [{ url }], defaults, minimizeConnections: true }).on("error", ignore)
      signal.throwIfAborted()
      signal.addEventListener("abort", closing(cluster))
      await cluster.connect()
      return {
        send: (key, words) => cluster.sendCommand(key, false, [...words]),
        nodes: () =>
          cluster.masters.map((node) => async (words) => (await cluster.nodeClient(node)).sendCommand([...words]))
      }
    }
  }
}

const ioredisSender =
  (node: Ioredis): SendTo =>
  ([command = "", ...words]) =>
    node.call(command, ...words)

export const ioredis = async (): Promise<ClientPackage> => {
  const { Cluster, Redis } = await import("ioredis")
  return {
    server: async (url, signal) => {
      const client = new Redis(url, {
        lazyConnect: true,
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        connectTimeout: connectMillis,
        retryStrategy: () => null
      })
      // The promise only says that there is no connection. The event has the reason.
      let reason: unknown
      client.on("error", (error) => (reason = error))
      signal.throwIfAborted()
      signal.addEventListener("abort", () => client.disconnect())
      await client.connect().catch((error) => {
        throw reason ?? error
      })
      return ioredisSender(client)
    },
    cluster: async (url, signal) => {
      const { hostname, password, port, protocol, username } = new URL(url)
      const login = { username: decodeURIComponent(username), password: decodeURIComponent(password) }
      const cluster = new Cluster([{ host: hostname, port: Number(port || 6379) }], {
        lazyConnect: true,
        enableOfflineQueue: false,
        clusterRetryStrategy: () => null,
        redisOptions: {
          connectTimeout: connectMillis,
          ...(password !== "" && login),
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
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND"

/** The package that is installed. */
export const installed = async (): Promise<ClientPackage> => {
  try {
    return await nodeRedis()
  } catch (error) {
    if (!isMissing(error)) throw error
  }
  try {
    return await ioredis()
  } catch (error) {
    if (!isMissing(error)) throw error
    throw new Error("no client is installed: npm install redis, or npm install ioredis", { cause: error })
  }
}
