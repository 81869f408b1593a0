/** Whose a request is: its caller and agent, and the caps from which it pays. */
import type { IncomingMessage } from "node:http"
import { Engine } from "floodgate/internal"
import type { Caller, FindCaller } from "./callers.ts"
import type { Exchange } from "./credentials.ts"
import * as Headers from "./headers.ts"
import type { Routed } from "./routes.ts"

/**
 * The caller of a request that was let in. The rules are asked only if something wants to know, and not again for a call, whose
 * plan has asked them. It is mutable.
 */
export class Whose {
  private known: Caller | undefined = undefined
  private readonly find: () => Caller

  constructor(find: () => Caller) {
    this.find = find
  }

  /** Sets the caller of a planned call. */
  is(caller: Caller): void {
    this.known = caller
  }

  get caller(): Caller {
    this.known ??= this.find()
    return this.known
  }
}

/** Whose a request is. Until its body has named a model, the rules for every model count, as for requests that are no calls. */
export const whoseIs = (
  find: FindCaller,
  routed: Routed,
  { headers }: IncomingMessage,
  exchange: Exchange | undefined
): Whose =>
  new Whose(() => {
    const { protocol, url } = routed
    const request = { url, protocol, header: Headers.readerOf(headers, exchange) }
    return find(Engine.unreadCall(request, Engine.anyModel))
  })
