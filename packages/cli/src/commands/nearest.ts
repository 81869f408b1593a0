/** The name that was probably meant by a misspelt one. Pure. */

/** Edits of one character that make one text of the other. */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (a[i] === b[j] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}

/** A name that is further away is no misspelling. */
const furthest = 3
const longest = 64

/** The known name that is nearest to a misspelt one, if any is near enough. */
export const nearest = (name: string, known: ReadonlyArray<string>): string | undefined => {
  if (name.length > longest) return undefined
  const byDistance = known.map((each) => [distance(name.toLowerCase(), each.toLowerCase()), each] as const)
  const [best] = byDistance.sort(([a], [b]) => a - b)
  return best !== undefined && best[0] <= Math.min(furthest, best[1].length / 2) ? best[1] : undefined
}
