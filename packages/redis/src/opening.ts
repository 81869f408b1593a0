/**
 * Finds the server or the cluster at an address.
 *
 * All servers that may know are asked at once, and the first that leads to the data is used. One that is dead, hangs, or has
 * lost sight of the others therefore costs no time, as it would if they were asked in turn.
 */
import { RedisAddress } from "floodgate/internal"
import type { ClientPackage, OpenedClient, SendTo } from "./clients.ts"

/** A client, and what it found. */
export interface FoundClient extends OpenedClient {
  /** All nodes of the cluster, as URLs: any of them leads to the cluster if the named ones are dead. */
  readonly known: ReadonlyArray<string>
}

/** Errors of a server begin with a code. */
export const isAnswer = /^[A-Z]{2,} /

/** The value of a field in a reply of `INFO`. */
const fieldOf = (info: unknown, name: string): string | undefined =>
  new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(String(info))?.[1]

/** Runs all at once, each with a signal of its own. The first success ends the others. */
const firstOf = async <A>(
  urls: ReadonlyArray<string>,
  signal: AbortSignal,
  run: (url: string, signal: AbortSignal) => Promise<A>
): Promise<A> => {
  const runs = urls.map((url) => {
    const end = new AbortController()
    const outcome = run(url, AbortSignal.any([signal, end.signal]))
    return { end, outcome: outcome.then((value) => ({ value, end })) }
  })
  const endOthers = (winner?: AbortController): void => {
    for (const { end } of runs) if (end !== winner) end.abort()
  }
  try {
    const { end, value } = await Promise.any(runs.map(({ outcome }) => outcome))
    endOthers(end)
    return value
  } catch (error) {
    endOthers()
    const { errors } = error as AggregateError
    // An error from a server says more than that another one is dead.
    throw errors.find(({ message }) => isAnswer.test(message)) ?? errors[0]
  }
}

/** All nodes in a reply of `CLUSTER SLOTS`. A node without a name is where the reply comes from. */
const nodesOf = (slots: unknown, asked: string, at: RedisAddress.Parsed["server"]): ReadonlyArray<string> => {
  const nodes = new Set<string>()
  const { hostname } = new URL(asked)
  for (const [, , ...replicas] of slots as ReadonlyArray<ReadonlyArray<unknown>>) {
    for (const [host, port] of replicas as ReadonlyArray<readonly [string | null, number]>) {
      nodes.add(at(host || hostname.replaceAll(/^\[|\]$/g, ""), Number(port)))
    }
  }
  return [...nodes]
}

const single = (send: SendTo): FoundClient => ({ send: (_, words) => send(words), nodes: () => [send], known: [] })

/** Opens an address. The signal closes everything. `known` are nodes that were found before. */
export const open = async (
  { cluster, server }: ClientPackage,
  address: string,
  signal: AbortSignal,
  known: ReadonlyArray<string> = []
): Promise<FoundClient> => {
  const parsed = RedisAddress.parse(address)
  if (parsed === undefined) throw new RangeError(`url: expected ${RedisAddress.expected}`)
  const { master, named, server: at } = parsed

  /** The cluster of a node, or the server itself. */
  const ofNode = async (url: string, end: AbortSignal) => {
    const send = await server(url, end)
    if (fieldOf(await send(["INFO", "cluster"]), "cluster_enabled") !== "1") {
      if (named.length === 1) return { send, nodes: undefined }
      throw new Error(
        `${RedisAddress.shown(url)} is no node of a cluster, and each of several servers would have a budget of its own: name one server, or Sentinels with redis+sentinel://`
      )
    }
    // A node that has lost sight of the others knows only how the cluster was.
    if (fieldOf(await send(["CLUSTER", "INFO"]), "cluster_state") !== "ok") {
      throw new Error("CLUSTERDOWN The cluster is down")
    }
    return { url, send, nodes: nodesOf(await send(["CLUSTER", "SLOTS"]), url, at) }
  }

  /** The master that a Sentinel names, if it is one still. */
  const ofSentinel = async (name: string, url: string, end: AbortSignal): Promise<SendTo> => {
    const ask = await server(url, end)
    const found = await ask(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])
    if (!Array.isArray(found)) {
      throw new Error(`the Sentinel at ${RedisAddress.shown(url)} knows no master named "${name}"`)
    }
    const send = await server(at(String(found[0]), Number(found[1])), end)
    const role = fieldOf(await send(["INFO", "replication"]), "role")
    if (role !== "master") throw new Error(`READONLY the Sentinels have not yet replaced the master "${name}"`)
    return send
  }

  if (master !== undefined) {
    return single(await firstOf(named, signal, (url, end) => ofSentinel(master, url, end)))
  }
  const probing = new AbortController()
  const found = await firstOf([...new Set([...named, ...known])], AbortSignal.any([signal, probing.signal]), ofNode)
  if (found.nodes === undefined) return single(found.send)
  probing.abort()
  return { ...(await cluster(found.url, signal)), known: found.nodes }
}
