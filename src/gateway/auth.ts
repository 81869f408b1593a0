/** Checks who may send requests: callers with the token, or, without one, the programs of this machine. */
import { createHash, timingSafeEqual } from "node:crypto"
import type { IncomingMessage } from "node:http"
import { isIP } from "node:net"
import type { Refusal } from "../protocol/index.ts"

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

/** The part of a path with the token. */
const prefix = /^\/token\/([^/?]+)(?=[/?]|$)/

/** A request: its target without the token, and why it is refused. */
export interface AuthResult {
  readonly target: string
  readonly refusal: Refusal | undefined
}

/** Whether only this machine reaches an address. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** The names that containers have for the machine that they run on. No website can have them: `.internal` is reserved. */
const ofContainers = ["host.docker.internal", "host.containers.internal"]

/** Whether a name always stands for this machine, whoever resolves it. */
const isOwnName = (name: string): boolean =>
  isLoopback(name) || name.endsWith(".localhost") || ofContainers.includes(name)

/** The longest name that an answer repeats. */
const longestName = 100

/** The name in a `host` header, without its port. */
const nameIn = (host: string): string => host.replace(/:\d*$/, "").replaceAll(/[[\]]/g, "").toLowerCase()

const wayIn = (name: string): string => `add ${name} to its setting hosts (--host-name ${name}), or give it a token`

/**
 * Why a request to a gateway without a token is refused. A website can have its own name resolve to this machine, and its pages
 * are then allowed to call the gateway, and to read the answers. Such a request has the website's name in `host`. A page of
 * another site can send simple requests without reading the answers; those have the site in `origin`. An address as the host is
 * no name that anybody could resolve to this machine.
 */
const foreign = ({ headers }: IncomingMessage, hosts: ReadonlySet<string>): Refusal | undefined => {
  const { host = "", origin } = headers
  const name = nameIn(host)
  if (isIP(name) === 0 && !isOwnName(name) && !hosts.has(name)) {
    const shown = name.slice(0, longestName)
    const what = name === "" ? "a request without a host" : `requests for the host "${shown}"`
    return { kind: "forbidden", message: `This gateway has no token and does not answer ${what}: ${wayIn(shown)}` }
  }
  if (origin === undefined) return undefined
  const site = URL.parse(origin)
  const page = site === null ? "" : nameIn(site.host)
  if (site !== null && (site.host === host || isOwnName(page) || hosts.has(page))) return undefined
  const help = page === "" ? "give it a token" : wayIn(page.slice(0, longestName))
  const what = `pages of other sites, such as ${origin.slice(0, longestName)}`
  return { kind: "forbidden", message: `This gateway has no token and does not answer ${what}: ${help}` }
}

const wantsToken: Refusal = {
  kind: "unauthorized",
  message:
    "This gateway wants its token: send it in the header x-floodgate-token, or put /token/TOKEN in front of the path. In a browser, open /floodgate/"
}

/**
 * Checks requests. The token is in the header `x-floodgate-token`, or in front of the path, for clients of which only the base URL
 * can be set. Without a token, `hosts` are the names of the gateway beside those of this machine.
 */
export const makeAuth = (
  token: string | undefined,
  hosts: ReadonlySet<string>
): ((request: IncomingMessage) => AuthResult) => {
  const expected = token === undefined ? undefined : digest(token)
  return (request) => {
    const { headers, url = "/" } = request
    const inPath = prefix.exec(url)
    const target = inPath === null ? url : url.slice(inPath[0].length) || "/"
    if (expected === undefined) return { target, refusal: foreign(request, hosts) }
    const given = headers["x-floodgate-token"] ?? inPath?.[1]
    const isKnown = typeof given === "string" && timingSafeEqual(digest(given), expected)
    return { target, refusal: isKnown ? undefined : wantsToken }
  }
}
