/** Hashes whose a call is: its session, its agent within it, and the agent that started that one. */
import { createHmac, randomBytes } from "node:crypto"
import type { CallRequest } from "floodgate/fetch"
import { Credentials, Lineage } from "floodgate/internal"
import { keyNameHeader } from "./credentials.ts"

type PlannedRequest = Omit<CallRequest, "body">

/** The lineage of a call. A client that sends none has one agent in each session. `fallback` names a caller that gives no name. */
const lineageOf = ({ agent, header, session }: PlannedRequest, fallback: string): Lineage.Lineage =>
  Lineage.lineageOf(header, session) ?? { session: agent ?? fallback, subAgent: undefined, parent: undefined }

/** The keyed hashes of a lineage: 64 bits each, in hexadecimal digits. */
export interface HashedLineage {
  readonly sessionId: string
  readonly agentId: string
  readonly parentId: string | undefined
}

const hashLength = 16

/**
 * Makes the function that hashes the names of calls (HMAC-SHA-256). Its key is random and never leaves the process, so nobody can find
 * a name by hashing guesses, and a name has another hash after a restart. The credential of a caller is part of what is hashed, so that
 * callers who choose the same name stay apart.
 */
export const makeLineageHasher = (): ((request: PlannedRequest, fallback: string) => HashedLineage) => {
  const key = randomBytes(32)
  const hashOf = (parts: ReadonlyArray<string>): string =>
    createHmac("sha256", key).update(JSON.stringify(parts)).digest("hex").slice(0, hashLength)
  return (request, fallback) => {
    const { parent, session, subAgent } = lineageOf(request, fallback)
    const caller = request.header(keyNameHeader) ?? Credentials.credentialsOf(request)[0] ?? ""
    const idOf = (name: string) => hashOf([caller, session, name])
    return {
      sessionId: hashOf([caller, session]),
      agentId: idOf(subAgent ?? session),
      parentId: subAgent === undefined ? undefined : idOf(parent ?? session)
    }
  }
}
