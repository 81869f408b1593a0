/** Stores conversations, so that later requests can continue them. The number of them is bounded. */
import type { Conversation } from "./dialects/dialect.ts"

/** A store of conversations by the ids of their answers. */
export interface Conversations {
  readonly find: (id: string) => Conversation | undefined
  readonly keep: (id: string, conversation: Conversation) => void
}

/** The most conversations. The oldest are forgotten, so that a server may run for days. */
const most = 10_000

/** An empty store. */
export const make = (): Conversations => {
  const kept = new Map<string, Conversation>()
  return {
    find: (id) => kept.get(id),
    keep: (id, conversation) => {
      kept.set(id, conversation)
      if (kept.size > most) kept.delete(kept.keys().next().value!)
    }
  }
}
