/**
 * Counts hand-overs: calls of a function of `src/` whose caller is in another file of it.
 *
 * A hook of the loader adds to each function that it notes its file when it begins and when it ends. It must be registered before
 * the library is imported. Generators are left out, because they may end in another order than they began.
 */
import { registerHooks } from "node:module"
import { fileURLToPath } from "node:url"
import ts from "typescript6"

/** The files of the functions that run, the innermost last. */
const running: Array<string> = []
const counts = new Map<string, number>()

Object.assign(globalThis, {
  $begin: (file: string): void => {
    const caller = running.at(-1)
    running.push(file)
    if (caller !== undefined && caller !== file) counts.set(file, (counts.get(file) ?? 0) + 1)
  },
  $end: (): void => void running.pop()
})

/** Returns the hand-overs to each file since this was last called. */
export const handOversSince = (): ReadonlyMap<string, number> => {
  const since = new Map(counts)
  counts.clear()
  return since
}

/** Returns the source of a file with its functions noted. */
const noted = (path: string, file: string, source: string): string => {
  const insertions: Array<readonly [at: number, text: string]> = []
  const begin = `$begin(${JSON.stringify(file)});try{`
  const visit = (node: ts.Node): void => {
    if (
      ts.isFunctionLike(node) &&
      "body" in node &&
      node.body !== undefined &&
      !("asteriskToken" in node && node.asteriskToken)
    ) {
      const { body } = node
      if (ts.isBlock(body)) insertions.push([body.getStart() + 1, begin], [body.end - 1, "}finally{$end()}"])
      else insertions.push([body.getStart(), `{${begin}return `], [body.end, "}finally{$end()}}"])
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, source, ts.ScriptTarget.Latest, true))
  let text = source
  for (const [at, added] of insertions.toReversed().toSorted(([one], [other]) => other - one)) {
    text = text.slice(0, at) + added + text.slice(at)
  }
  return text
}

/** Notes the functions of all files below a folder, given as a URL. */
export const noteHandOvers = (folder: string): void => {
  registerHooks({
    load: (url, context, next) => {
      const loaded = next(url, context)
      if (!url.startsWith(folder) || loaded.source == null) return loaded
      const source =
        typeof loaded.source === "string" ? loaded.source : Buffer.from(loaded.source as Uint8Array).toString()
      return { ...loaded, source: noted(fileURLToPath(url), url.slice(folder.length), source) }
    }
  })
}
