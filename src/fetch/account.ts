/**
 * Whose limits a request counts towards: the origin it goes to, and the organisation whose credential it has.
 *
 * A credential is known by its hash. When a response names the organisation, every other credential of it joins the account of
 * the first, which keeps its name: calls that wait or run there are in one pool with those that come.
 */
import * as Recency from "../input/recency.ts"
import type { HeaderReader } from "../protocol/headers.ts"

/** Where a request goes, and with what. */
export interface Addressed {
  readonly url: string
  readonly header: HeaderReader
}

/** Enough for all keys and organisations of a program; one that is forgotten is met anew. */
const most = 10_000

// -----------------------------------------------------------------------------
// Credentials
// -----------------------------------------------------------------------------

/** What a request may have its credential in: Anthropic and Bedrock, OpenAI and most others, Azure, Google. */
const credentialHeaders = ["authorization", "x-api-key", "api-key", "x-goog-api-key"] as const
/** What chooses the organisation or the project of a credential that has several. */
const choiceHeaders = ["openai-organization", "openai-project"] as const
/** AWS signs each request anew; the access key stays. */
const awsKey = /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/
/** Google's tokens change each hour; the project is in the path. */
const googleProject = /\/projects\/([^/]+)\//

const credentialOf = ({ header, url }: Addressed): string => {
  const project = googleProject.exec(url)?.[1]
  if (project !== undefined) return project
  const given = credentialHeaders.map((name) => header(name) ?? undefined).find((value) => value !== undefined)
  const credential = given ?? URL.parse(url)?.searchParams.get("key") ?? ""
  const choices = choiceHeaders.map((name) => header(name) ?? "").join(" ")
  return `${awsKey.exec(credential)?.[1] ?? credential} ${choices}`.trim()
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

/** The accounts of a program. It is mutable and belongs to one engine. */
export interface Accounts {
  /** The account of a request. A credential that is new has to be hashed first. */
  readonly of: (request: Addressed) => string | Promise<string>
  /** Takes in what a response says of the account of its request. */
  readonly learn: (request: Addressed, response: HeaderReader) => void
}

export const makeAccounts = (): Accounts => {
  const byCredential = new Map<string, string>()
  const byOrganisation = new Map<string, string>()

  const keyOf = (request: Addressed) => {
    const host = URL.parse(request.url)?.host ?? ""
    const credential = credentialOf(request)
    return { host, credential, key: `${host} ${credential}` }
  }

  return {
    of: (request) => {
      const { credential, host, key } = keyOf(request)
      if (credential === "") return host
      const known = byCredential.get(key)
      if (known === undefined) {
        return hashOf(credential).then((hash) => {
          const account = byCredential.get(key) ?? `${host}/${hash}`
          Recency.put(byCredential, key, account, most)
          return account
        })
      }
      Recency.put(byCredential, key, known, most)
      return known
    },
    learn: (request, response) => {
      const organisation = organisationOf(response)
      if (organisation === undefined) return
      const { host, key } = keyOf(request)
      const own = byCredential.get(key)
      if (own === undefined) return
      const name = `${host} ${organisation}`
      const first = byOrganisation.get(name) ?? own
      Recency.put(byOrganisation, name, first, most)
      if (first !== own) Recency.put(byCredential, key, first, most)
    }
  }
}
