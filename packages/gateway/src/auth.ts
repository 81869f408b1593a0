/** Decides who may send requests: callers with the token, or local programs if the gateway has none. */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http"
import { isIP } from "node:net"
import type { Refusing } from "floodgate/internal"
import { isSecret } from "./secrets.ts"

/** The part of a path with the token. */
const prefix = /^\/token\/([^/?]+)(?=[/?]|$)/

/** The target of a request without the token, and why the request is refused, if it is. */
export interface AuthResult {
  readonly target: string
  readonly refusal: Refusing.Refusal | undefined
}

/** Whether an address is reachable from this machine only. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** Names of the host machine within containers. No website can have them, because `.internal` is reserved. */
const containerHosts = ["host.docker.internal", "host.containers.internal"]

/** Whether a name stands for this machine, whoever resolves it. */
const isOwnName = (name: string): boolean =>
  isLoopback(name) || name.endsWith(".localhost") || containerHosts.includes(name)

/** The longest name that an answer repeats. */
const longestName = 100

/** The name in a `host` header, without its port. */
const nameIn = (host: string): string => host.replace(/:\d*$/, "").replaceAll(/[[\]]/g, "").toLowerCase()

/** Explains how to let callers in by a name; the name is empty if it could not be read. */
const remedy = (name: string): string =>
  name === "" ? "set a token" : `set a token, or add ${name} to the setting hosts (--host-name ${name})`

/**
 * Refuses a request that may come from a website, where a gateway has no token. A website can let its own name resolve to this
 * machine, so that browsers allow its pages to call the gateway and read the answers; `host` then has the website's name. Pages of
 * any other site can send simple requests without reading the answers; `origin` then has that site. A `host` that is an address is
 * safe, because no website can make it resolve to this machine.
 */
const foreign = ({ headers }: IncomingMessage, hosts: ReadonlySet<string>): Refusing.Refusal | undefined => {
  const { host = "", origin } = headers
  const name = nameIn(host)
  if (isIP(name) === 0 && !isOwnName(name) && !hosts.has(name)) {
    const shown = name.slice(0, longestName)
    const what = name === "" ? "a request without a host" : `requests for the host "${shown}"`
    return { kind: "forbidden", message: `Without a token, the gateway does not answer ${what}: ${remedy(shown)}` }
  }
  if (origin === undefined) return undefined
  const site = URL.parse(origin)
  const page = site === null ? "" : nameIn(site.host)
  if (site !== null && (site.host === host || isOwnName(page) || hosts.has(page))) return undefined
  const what = `pages of other sites, such as ${origin.slice(0, longestName)}`
  const help = remedy(page.slice(0, longestName))
  return { kind: "forbidden", message: `Without a token, the gateway does not answer ${what}: ${help}` }
}

const noToken: Refusing.Refusal = {
  kind: "unauthorized",
  message:
    "The token of the gateway is missing or wrong: add the header x-floodgate-token, or put /token/TOKEN in front of the path. In a browser, open /floodgate/"
}

/** The gateway's own paths. No provider's key is sent to them, so the token may be where Prometheus puts it. */
const own = /^\/(?:metrics|floodgate)(?:[/?]|$)/
const bearerOf = ({ authorization }: IncomingHttpHeaders): string | undefined =>
  /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1]

/**
 * Makes the check of requests. The token is in the header `x-floodgate-token`, or in front of the path for clients that can only
 * set a base URL. If the gateway has no token, `hosts` are its names in addition to those of this machine.
 */
export const makeAuth = (
  token: string | undefined,
  hosts: ReadonlySet<string>
): ((request: IncomingMessage) => AuthResult) => {
  const isToken = token === undefined ? undefined : isSecret(token)
  /** The last host that was accepted. Nearly all requests have the same one. */
  let known = ""
  const refusalOf = (request: IncomingMessage): Refusing.Refusal | undefined => {
    const { host = "", origin } = request.headers
    if (host === known && origin === undefined && known !== "") return undefined
    const refusal = foreign(request, hosts)
    if (refusal === undefined) known = host
    return refusal
  }
  return (request) => {
    const { headers, url = "/" } = request
    const inPath = prefix.exec(url)
    const target = inPath === null ? url : url.slice(inPath[0].length) || "/"
    if (isToken === undefined) return { target, refusal: refusalOf(request) }
    const given = headers["x-floodgate-token"] ?? inPath?.[1] ?? (own.test(target) ? bearerOf(headers) : undefined)
    return { target, refusal: isToken(given) ? undefined : noToken }
  }
}
