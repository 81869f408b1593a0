/**
 * Synchronous forms of the functions of a service, for callers that can do without Effect, or that have checked what they pass.
 *
 * A synchronous form is attached to the function that it stands for, and not to the service. So a layer that replaces the function,
 * as in `{ ...budget, reserve: mine }`, removes it and sees every call.
 */
import * as Context from "effect/Context"

const syncForm: unique symbol = Symbol("floodgate/syncForm")

interface Attached<Now> {
  /** The function that it stands for: a proxy or a copy of its properties is another function. */
  readonly of: unknown
  readonly now: Now
}

/** Attaches its synchronous form to a function. */
export const attach = <F extends object, Now>(self: F, now: Now): F => {
  const attached: Attached<Now> = { of: self, now }
  return Object.assign(self, { [syncForm]: attached })
}

/** The synchronous form of a function; undefined if it has none. The caller knows its type from the function. */
export const of = <Now>(self: object): Now | undefined => {
  const found = (self as { readonly [syncForm]?: Attached<Now> })[syncForm]
  return found !== undefined && found.of === self ? found.now : undefined
}

/** Whether calls never use the synchronous form of `reserve`. Tests set it to compare both forms. */
export const OnlyEffect = Context.Reference<boolean>("floodgate/OnlyEffect", { defaultValue: () => false })
