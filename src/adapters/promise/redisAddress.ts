/**
 * The address of Redis, which is one of
 *
 * - a server, or any node of a cluster: `redis://user:password@host:6379/0`, with TLS `rediss://`
 * - several nodes of one cluster: `redis://host:6379,host:6379`
 * - Sentinels: `redis+sentinel://user:password@host:26379,host:26379/master-name/0`. The user and the password are those of the
 *   master. `?sentinelUser=name&sentinelPassword=word` are those of the Sentinels.
 */
import * as Input from "../../domain/input/checks.ts"

/** The expected form, for errors. */
export const expected =
  "an address such as redis://127.0.0.1:6379, redis://host:6379,host:6379 (nodes of a cluster) or redis+sentinel://host:26379,host:26379/master-name"

/** A parsed address. A server is a URL as the clients of Redis take it, with user and password. */
export interface Parsed {
  /** The servers that are named: one, several nodes of a cluster, or the Sentinels. */
  readonly named: ReadonlyArray<string>
  /** The name of the master that the Sentinels watch; undefined if the named servers keep the data themselves. */
  readonly master: string | undefined
  /** The URL of a server that keeps the data. */
  readonly server: (host: string, port: number) => string
}

const form =
  /^redis(?<tls>s?)(?<sentinel>\+sentinel)?:\/\/(?:(?<login>[^/?#]*)@)?(?<hosts>[^/?#]*)(?<path>[^?#]*)(?<query>[^#]*)$/

/** The path and the query of an address of Sentinels; undefined if they have another form. */
const watchedOf = (path: string, query: string) => {
  const [, master, database = ""] = /^\/([^/]+)(\/\d*)?$/.exec(path) ?? []
  if (master === undefined) return undefined
  const { sentinelPassword = "", sentinelUser = "", ...others } = Object.fromEntries(new URLSearchParams(query))
  if (Object.keys(others).length > 0) return undefined
  const login = [sentinelUser, sentinelPassword].map(encodeURIComponent).join(":")
  return { master: decodeURIComponent(master), database, login: login === ":" ? "" : `${login}@` }
}

const read = (text: string): Parsed | undefined => {
  const groups = form.exec(text)?.groups
  if (groups === undefined) return undefined
  const { hosts = "", login, path = "", query = "", sentinel, tls } = groups
  decodeURIComponent(login ?? "")
  const scheme = `redis${tls}://`
  const own = login === undefined ? "" : `${login}@`
  const serverWith =
    (tail: string) =>
    (host: string, port: number): string =>
      `${scheme}${own}${host.includes(":") ? `[${host}]` : host}:${port}${tail}`
  const each = hosts.split(",")
  if (sentinel === undefined) {
    const tail = path + query
    const named = each.map((host) => `${scheme}${own}${host}${tail}`)
    // A single server without a name is the one of this machine, for the clients.
    if (!named.every((url) => isServer(url, named.length === 1))) return undefined
    return { named, master: undefined, server: serverWith(tail) }
  }
  const watched = watchedOf(path, query)
  if (watched === undefined) return undefined
  const { database, login: ofSentinels, master } = watched
  const named = each.map((host) => `${scheme}${ofSentinels}${host}${/:\d+$/.test(host) ? "" : ":26379"}`)
  if (!named.every((url) => isServer(url, false))) return undefined
  return { named, master, server: serverWith(database) }
}

const isServer = (url: string, mayBeUnnamed: boolean): boolean => {
  const hostname = URL.parse(url)?.hostname
  return hostname !== undefined && (hostname !== "" || mayBeUnnamed)
}

/** Reads an address; undefined if it has another form. */
export const parse = (text: string): Parsed | undefined => {
  try {
    return read(text)
  } catch {
    return undefined // a "%" that encodes nothing
  }
}

export const isAddress = (value: unknown): boolean => typeof value === "string" && parse(value) !== undefined

/** An address may contain a password. */
export const check: Input.Check = Input.secret(expected, isAddress)

/** An address without users, passwords and query, for messages. */
export const shown = (address: string): string => {
  const { hosts = "", path = "", sentinel = "", tls = "" } = form.exec(address)?.groups ?? {}
  return `redis${tls}${sentinel}://${hosts}${path === "/" ? "" : path}`
}
