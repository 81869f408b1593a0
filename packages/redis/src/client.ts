/**
 * A connection to Redis with the installed client, `redis` or `ioredis`, to a server, its cluster, or what Sentinels watch.
 *
 * A client is used as long as it answers. If it fails or does not answer in time, it is closed, and the next command opens a
 * new one. So the connection does not depend on how a client reconnects, and what has failed over is found anew.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { StoreError } from "floodgate/BudgetStore"
import * as Clients from "./clients.ts"
import * as Opening from "./opening.ts"

/** Opens an address. The signal closes the client, even while it opens. `known` are nodes that were found before. */
type Open = (url: string, signal: AbortSignal, known?: ReadonlyArray<string>) => Promise<Opening.FoundClient>

/** A connection, which opens when it is used. */
export interface RedisConnection {
  readonly send: (key: string, words: ReadonlyArray<string>) => Effect.Effect<unknown, StoreError>
  /** All keys of all nodes that match a pattern. */
  readonly keys: (pattern: string) => Effect.Effect<ReadonlyArray<string>, StoreError>
}

const openBy =
  (client: () => Promise<Clients.ClientPackage>): Open =>
  async (url, signal, known) =>
    Opening.open(await client(), url, signal, known)

/** Opens a client of the package `redis`. */
export const openRedis = openBy(Clients.nodeRedis)
/** Opens a client of the package `ioredis`. */
export const openIoredis = openBy(Clients.ioredis)
const openInstalled = openBy(Clients.installed)

/** Some codes mean that another server is responsible. */
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
  private opened: { readonly client: Promise<Opening.FoundClient>; readonly end: AbortController } | undefined =
    undefined
  /** The nodes of the cluster when it was last opened: the named ones may be dead by now. */
  private known: ReadonlyArray<string> = []

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
      this.opened = { client: this.open(this.url, end.signal, this.known), end }
    }
    return this.opened
  }

  private use<A>(run: (client: Opening.FoundClient) => Promise<A>): Effect.Effect<A, StoreError> {
    return Effect.suspend(() => {
      let isOpen = false
      const used = this.connection()
      return Effect.tryPromise({
        try: async () => {
          const client = await used.client
          isOpen = true
          this.known = client.known
          return run(client)
        },
        catch: (cause) => {
          const { message } = cause as Error
          if (!isOpen || !Opening.isAnswer.test(message) || isElsewhere.test(message)) this.close(used)
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
