/**
 * The account whose limits a request counts towards: its origin, and the organisation of its credential.
 *
 * A credential is identified by its hash. When responses show that several credentials belong to one organisation, they share
 * the account of the first, which keeps its name, so that earlier and later calls are in one pool.
 */
import * as Lru from "../domain/input/lru.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import { type Addressed, credentialsOf, hostOf } from "./credentials.ts"

/** More keys and organisations than a program has. One that is evicted is learned again. */
const maxRemembered = 10_000

/** The statuses of credentials that may be invented: unknown to the provider, or not permitted. */
const refusals = [401, 403]

/** The headers that select an organisation or a project at OpenAI, for credentials with several. */
const choiceHeaders = ["openai-organization", "openai-project"] as const

/** Identifies whose limits a request counts towards: the host that it is sent to, and its credential, empty if it has none. */
export interface Identity {
  readonly host: string
  readonly credential: string
}

/** Reads the identity of a request. */
export const identityOf = (request: Addressed): Identity => ({
  host: hostOf(request),
  credential: credentialOf(request)
})

const keyOf = ({ credential, host }: Identity): string => `${host} ${credential}`

const credentialOf = (request: Addressed): string => {
  const [credential = ""] = credentialsOf(request)
  if (!request.protocol.startsWith("openai")) return credential
  const choices = choiceHeaders.map((name) => request.header(name) ?? "")
  return choices.some((choice) => choice !== "") ? [credential, ...choices].join(" ").trim() : credential
}

/** A name for a secret that does not reveal it: 48 bits of its SHA-256. */
const hashOf = async (text: string): Promise<string> => {
  const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)))
  return Array.from(digest.subarray(0, 6), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

/** The organisation that a response names: Anthropic's, or OpenAI's with its project. */
const organisationOf = (header: HeaderReader): string | undefined => {
  const names = ["anthropic-organization-id", "openai-organization", "openai-project"]
  const named = names.map((name) => header(name) ?? "").join(" ")
  return named.trim() === "" || named.length > 512 ? undefined : named
}

// -----------------------------------------------------------------------------
// Accounts
// -----------------------------------------------------------------------------

/** The parts of a response that identify the account. */
interface AccountResponse {
  readonly status: number
  readonly header: HeaderReader
}

/** The accounts of a program. It is mutable and belongs to one engine. */
export interface Accounts {
  /**
   * The account of a request. It is a promise if the credential must be hashed first. `nameOf` returns the name of a credential
   * that has one, which then replaces the hash.
   */
  readonly of: (identity: Identity, nameOf?: CredentialName) => string | Promise<string>
  /**
   * Remembers a credential that a response has confirmed, and the organisation that the response names. Returns the account that
   * the credential belongs to from now on, if it is another one than before.
   */
  readonly learn: (identity: Identity, account: string, response: AccountResponse) => string | undefined
}

/** Returns the name that somebody has given a credential. */
export type CredentialName = (credential: string) => string | undefined

export const makeAccounts = (): Accounts => {
  const byCredential = new Map<string, string>()
  const byOrganisation = new Map<string, string>()

  return {
    of: (identity, nameOf) => {
      const { credential, host } = identity
      if (credential === "") return host
      const key = keyOf(identity)
      const known = byCredential.get(key)
      const name = known === undefined ? nameOf?.(credential) : undefined
      if (name !== undefined) return `${host}/${name}`
      // Invented credentials must not fill the memory, so a credential is kept once a response has confirmed it.
      if (known === undefined) return hashOf(credential).then((hash) => byCredential.get(key) ?? `${host}/${hash}`)
      Lru.put(byCredential, key, known, maxRemembered)
      return known
    },
    learn: (identity, account, { header, status }) => {
      const { credential, host } = identity
      if (credential === "" || refusals.includes(status)) return undefined
      const key = keyOf(identity)
      const organisation = organisationOf(header)
      const own = byCredential.get(key) ?? account
      if (organisation === undefined) {
        Lru.put(byCredential, key, own, maxRemembered)
        return undefined
      }
      const name = `${host} ${organisation}`
      const first = byOrganisation.get(name) ?? own
      Lru.put(byOrganisation, name, first, maxRemembered)
      Lru.put(byCredential, key, first, maxRemembered)
      return first === own ? undefined : first
    }
  }
}
