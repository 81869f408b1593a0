/** The heap of this process: its size after a full garbage collection, and what it consists of. */
import { readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setFlagsFromString, writeHeapSnapshot } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** Collects all garbage, which takes several rounds: finalizers run between them. Returns the bytes in use. */
export const heapUsed = async (): Promise<number> => {
  for (let round = 0; round < 4; round++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  collect()
  return process.memoryUsage().heapUsed
}

/** How many objects of a constructor there are, and how many bytes they have themselves. */
export interface HeapPart {
  readonly count: number
  readonly bytes: number
}

interface Snapshot {
  readonly snapshot: {
    readonly meta: {
      readonly node_fields: ReadonlyArray<string>
      readonly node_types: ReadonlyArray<ReadonlyArray<string>>
    }
  }
  readonly nodes: ReadonlyArray<number>
  readonly strings: ReadonlyArray<string>
}

/** What the heap consists of, by the name of the constructor. */
export const heapParts = (): ReadonlyMap<string, HeapPart> => {
  const file = writeHeapSnapshot(join(tmpdir(), `floodgate-${process.pid}-${process.hrtime.bigint()}.heapsnapshot`))
  try {
    const { nodes, snapshot, strings } = JSON.parse(readFileSync(file, "utf8")) as Snapshot
    const { node_fields: fields, node_types: types } = snapshot.meta
    const [type, name, size] = ["type", "name", "self_size"].map((field) => fields.indexOf(field)) as [
      number,
      number,
      number
    ]
    const parts = new Map<string, { count: number; bytes: number }>()
    for (let at = 0; at < nodes.length; at += fields.length) {
      const kind = types[type]![nodes[at + type]!]!
      // Strings have their content for a name.
      const named = kind === "object" || kind === "closure" ? `${kind} ${strings[nodes[at + name]!]}` : kind
      const part = parts.get(named) ?? { count: 0, bytes: 0 }
      part.count++
      part.bytes += nodes[at + size]!
      parts.set(named, part)
    }
    return parts
  } finally {
    rmSync(file, { force: true })
  }
}

/** The parts that have grown most, one a line. */
export const grown = (before: ReadonlyMap<string, HeapPart>, after: ReadonlyMap<string, HeapPart>, max = 20): string =>
  [...after]
    .map(([name, { bytes, count }]) => {
      const was = before.get(name) ?? { bytes: 0, count: 0 }
      return { name, bytes: bytes - was.bytes, count: count - was.count }
    })
    .sort((one, other) => other.bytes - one.bytes)
    .slice(0, max)
    .map(({ bytes, count, name }) => `${Math.round(bytes / 1_000)} KB in ${count} of ${name.slice(0, 80)}`)
    .join("\n")
