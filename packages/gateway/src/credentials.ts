/** Takes the caller's key out of a request, and puts the provider's credential in. */
import type { IncomingHttpHeaders } from "node:http"
import { Credentials, type ProviderHeaders } from "floodgate/internal"
import type { KeyHolder } from "./keys.ts"
import type { Routed } from "./routes.ts"

/** Headers in which clients send a key. */
const keyHeaders = ["authorization", "x-api-key", "api-key", "x-goog-api-key"] as const

/** Parameters of the query in which Google accepts a credential. Only `key` is a key. */
const inQuery = /^\$?(?:key|access_token|oauth_token)$/

const nameOf = (parameter: string): string => {
  const [name = ""] = parameter.split("=", 1)
  try {
    return decodeURIComponent(name.replaceAll("+", " "))
  } catch {
    return name
  }
}

/** A request target without its credentials, and the keys that were in it. The rest keeps its bytes. */
const split = (target: string): { readonly target: string; readonly keys: ReadonlyArray<string> } => {
  const start = target.indexOf("?")
  if (start < 0) return { target, keys: [] }
  const parameters = target.slice(start + 1).split("&")
  const kept = parameters.filter((parameter) => !inQuery.test(nameOf(parameter)))
  if (kept.length === parameters.length) return { target, keys: [] }
  const query = kept.join("&")
  const keys = [...new URLSearchParams(target.slice(start))].flatMap(([name, value]) =>
    /^\$?key$/.test(name) ? [value] : []
  )
  return { target: target.slice(0, start) + (query === "" ? "" : `?${query}`), keys }
}

/** The credentials that a caller has sent, each value once, and the target without them. */
export interface Presented {
  readonly keys: ReadonlyArray<string>
  readonly target: string
  /** Whether a key was in the header `authorization`. */
  readonly isBearer: boolean
}

/** Reads the credentials of a request. A header that was sent twice counts with both values. */
export const presented = (raw: ReadonlyArray<string>, given: string): Presented => {
  const { keys: inTarget, target } = split(given)
  const keys = new Set<string>()
  let isBearer = false
  const add = (value: string): void => {
    const key = value.trim()
    if (key !== "") keys.add(key)
  }
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index]!.toLowerCase()
    const value = raw[index + 1]!
    if (name === "authorization") {
      isBearer = true
      add(value.replace(/^bearer(?:\s+|$)/i, ""))
    } else if ((keyHeaders as ReadonlyArray<string>).includes(name)) add(value)
  }
  for (const key of inTarget) add(key)
  return { keys: [...keys], target, isBearer }
}

/** A caller with a key of the gateway, and the credential that its requests get. */
export interface Exchange {
  readonly holder: KeyHolder
  /** The header with the provider's credential; undefined if the upstream needs none. */
  readonly header: Credentials.CredentialHeader | undefined
}

/** The version of Anthropic's API in which keys are sent in `x-api-key`. */
const withApiKey = "2023-06-01"

/** The protocols of upstreams. A path that several providers have is known by its upstream. */
const protocols: Readonly<Record<string, string>> = { anthropic: "anthropic-messages", gemini: "gemini" }

/** The header in which an upstream expects its credential. */
const headerOf = (
  { protocol, upstream: { name }, url }: Routed,
  { "anthropic-version": version }: IncomingHttpHeaders,
  isBearer: boolean
): string => {
  const location = Credentials.credentialLocation(protocol?.name ?? protocols[name] ?? "", url)
  return location === "x-api-key" && isBearer && version !== withApiKey ? "authorization" : location
}

/** Exchanges a caller's key for the credential of its upstream. */
export const exchange = (
  holder: KeyHolder,
  credential: string | undefined,
  routed: Routed,
  headers: IncomingHttpHeaders,
  isBearer: boolean
): Exchange => {
  if (credential === undefined) return { holder, header: undefined }
  return { holder, header: Credentials.headerWith(headerOf(routed, headers, isBearer), credential) }
}

/** Whether a header of the caller is not passed on, because the provider gets another credential. */
export const isReplaced = (name: string): boolean => Credentials.ofCallers.has(name)

/** The header by which rules and records know the name of a key. Callers cannot set it. */
export const keyNameHeader = "x-floodgate-key"

/** Reads the headers of a request as the provider gets them, and the name of the key. */
export const readerOf = (
  read: ProviderHeaders.HeaderReader,
  { header, holder }: Exchange
): ProviderHeaders.HeaderReader => {
  const replaced = Credentials.replacedIn(read, header)
  return (name) => (name === keyNameHeader ? holder.name : replaced(name))
}
