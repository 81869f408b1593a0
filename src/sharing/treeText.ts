/** The state of a tree as text, and back. Its key has no version: processes of two versions keep one cap. */
import type * as Tree from "../domain/tree.ts"
import {
  amount,
  atLeastOne,
  each,
  lasting,
  object,
  oneOf,
  optional,
  record,
  share,
  utc,
  utcOrNever
} from "./readers.ts"
import * as Read from "./readers.ts"
import type { SeenAgent, TreeMember, TreePart, TreeState } from "./tree.ts"

const format = 1

const prefix = "tree:"

/** The key of a tree in a store. */
export const keyOf = (name: string): string => `${prefix}${name}`

const config = object<Tree.CapsInForce>({
  caps: object<Tree.TreeCaps>({
    ...each(optional(atLeastOne), "agents", "atOnce", "perHour"),
    depth: optional(amount)
  }),
  stop: oneOf("none", "agents", "calls")
})

const agents = record(
  object<SeenAgent>({ ...each(amount, "depth", "calls"), parent: optional(Read.text), ...each(utc, "since", "at") })
)

const part = object<TreePart>({ of: share, agents: amount, ...each(lasting, "fromMillis", "untilMillis") })

interface StoredTree extends TreeState {
  readonly format: number
}

const state = object<StoredTree>({
  ...Read.shared(config),
  format: Read.formatUpTo(format),
  law: object({ lag: lasting, offset: utc, utc: utcOrNever, gone: agents }),
  members: record(object<TreeMember>({ ...Read.member(amount, amount), agents, part: optional(part) }))
})

export const encode = (stored: TreeState): string => JSON.stringify({ format, ...stored })

/** Reads a state. Throws `Damaged` if no process can have written the text, and `TooNew` if a later version has. */
export const decode = (encoded: string): TreeState => {
  const stored = Read.decoded(encoded, state)
  for (const member of Object.values(stored.members)) Read.checkMember(member, stored)
  return stored
}
