/** Stores conversations, so that later requests can continue them. The number of them is bounded. */
import type { Conversation } from "./dialects/dialect.ts"

/** A store of conversations by the ids of their answers. */
export interface StoredConversations {
  readonly find: (id: string) => Conversation | undefined
  readonly keep: (id: string, conversation: Conversation) => void
}

/** How many conversations are stored. The oldest are forgotten, so that a server may run for days. */
const maxConversations = 10_000

/** An empty store. */
export const make = (): StoredConversations => {
  const kept = new Map<string, Conversation>()
  return {
    find: (id) => kept.get(id),
    keep: (id, conversation) => {
      kept.set(id, conversation)
      if (kept.size > maxConversations) kept.delete(kept.keys().next().value!)
    }
  }
}
