/**
 * Faults that are planted in a copy of the sources, to show that a test notices them.
 *
 * A fault names an exported function, class or method and says what changes in it, in terms of its syntax tree: a condition
 * that never holds, a statement that is dropped, a value that passes through a function. Local names, private functions and
 * files may change without it. A change looks at the named declaration, and then at the functions of the same folder that it
 * calls. Where several places fit, each is tried, and the test must notice at least one of them.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import ts from "typescript6"
import { isExported, namesOf, parse, root, sourceFiles } from "./modules.ts"

/** A replacement of a part of a file. */
interface Edit {
  readonly node: ts.Node
  readonly text: string
}

/** Changes a declaration: one list of edits for each place where the change fits. */
export type Change = (found: Found) => ReadonlyArray<ReadonlyArray<Edit>>

export interface Fault {
  /** The part that the fault removes, as in "a copy without ...". */
  readonly without: string
  /**
   * The declaration to break, by its exported name: `Cap.wait` is the function `wait` of `cap.ts`, and `FairQueue.push` a
   * method of the class `FairQueue`. The first part matters only if several modules export the second; a folder can
   * distinguish them too, as in `budget/Pool.isIdle`.
   */
  readonly in: string
  readonly by: Change
}

// -----------------------------------------------------------------------------
// Finding what is named
// -----------------------------------------------------------------------------

/** A declaration, followed by the functions that it calls. */
interface Found {
  readonly declaration: ts.Node
  readonly reached: ReadonlyArray<ts.Node>
}

/** The top-level functions, constants and classes of a file by name. */
const declaredIn = (file: string): ReadonlyMap<string, ts.Node> => {
  const declared = new Map<string, ts.Node>()
  for (const statement of parse(file).statements) {
    if (ts.isVariableStatement(statement)) {
      for (const each of statement.declarationList.declarations) declared.set(each.name.getText(), each)
    } else if (ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement)) {
      declared.set(statement.name!.text, statement)
    }
  }
  return declared
}

const exportsOf = (file: string): ReadonlyArray<string> => parse(file).statements.filter(isExported).flatMap(namesOf)

/** A module's own file, and those whose values it re-exports. */
const partsOf = (file: string): ReadonlyArray<string> => {
  const again = parse(file).statements.flatMap((node) =>
    ts.isExportDeclaration(node) && !node.isTypeOnly && node.moduleSpecifier !== undefined
      ? [join(dirname(file), (node.moduleSpecifier as ts.StringLiteral).text)]
      : []
  )
  return [file, ...again.flatMap(partsOf)]
}

const isNamed = (file: string, module: string): boolean =>
  basename(file, ".ts").toLowerCase() === module.toLowerCase() ||
  (basename(file) === "index.ts" && basename(dirname(file)).toLowerCase() === module.toLowerCase())

const candidatesFor = (name: string): ReadonlyArray<ts.Node> => {
  const exporting = (of: string, files: ReadonlyArray<string>): Array<ts.Node> => {
    const found = files.filter((file) => exportsOf(file).includes(of)).map((file) => declaredIn(file).get(of))
    return [...new Set(found)].filter((node) => node !== undefined)
  }
  const [path = "", folder] = name.split("/").reverse()
  const files = sourceFiles().filter((file) => folder === undefined || dirname(file).split("/").includes(folder))
  const [first = "", second] = path.split(".")
  if (second === undefined) return exporting(first, files)
  const ofModule = exporting(second, files.filter((file) => isNamed(file, first)).flatMap(partsOf))
  if (ofModule.length > 0) return ofModule
  const ofClass = exporting(first, files)
    .filter(ts.isClassDeclaration)
    .flatMap(({ members }) => members.filter((member) => member.name?.getText() === second))
  return ofClass.length > 0 ? ofClass : exporting(second, files)
}

/** The names that a file imports from its folder, with the file and the name there. */
const importedBy = (
  file: string
): ReadonlyMap<string, { readonly file: string; readonly name: string | undefined }> => {
  const imported = new Map<string, { readonly file: string; readonly name: string | undefined }>()
  for (const node of parse(file).statements) {
    if (!ts.isImportDeclaration(node) || !(node.moduleSpecifier as ts.StringLiteral).text.startsWith("./")) continue
    const from = join(dirname(file), (node.moduleSpecifier as ts.StringLiteral).text)
    const bindings = node.importClause?.namedBindings
    if (bindings === undefined) continue
    if (ts.isNamespaceImport(bindings)) imported.set(bindings.name.text, { file: from, name: undefined })
    else {
      for (const { name, propertyName } of bindings.elements) {
        imported.set(name.text, { file: from, name: (propertyName ?? name).text })
      }
    }
  }
  return imported
}

/** Resolves a name to a declaration in the same folder, or to a method of the same class. */
const meantBy = (node: ts.Node): ts.Node | undefined => {
  const file = node.getSourceFile().fileName
  if (ts.isIdentifier(node)) {
    const { parent } = node
    if (ts.isPropertyAccessExpression(parent) && parent.name === node) return undefined
    const from = importedBy(file).get(node.text)
    return from?.name === undefined ? declaredIn(file).get(node.text) : declaredIn(from.file).get(from.name)
  }
  if (!ts.isPropertyAccessExpression(node)) return undefined
  if (node.expression.kind === ts.SyntaxKind.ThisKeyword) {
    const of = ts.findAncestor(node, ts.isClassDeclaration)
    return of?.members.find((member) => member.name?.getText() === node.name.text)
  }
  const from = importedBy(file).get(node.expression.getText())
  return from === undefined || from.name !== undefined ? undefined : declaredIn(from.file).get(node.name.text)
}

const nodesIn = (node: ts.Node): ReadonlyArray<ts.Node> => {
  const nodes: Array<ts.Node> = []
  const visit = (each: ts.Node): void => {
    nodes.push(each)
    ts.forEachChild(each, visit)
  }
  visit(node)
  return nodes
}

const isFunction = (node: ts.Node): boolean =>
  ts.isFunctionLike(node) ||
  (ts.isVariableDeclaration(node) && node.initializer !== undefined && ts.isFunctionLike(node.initializer))

const find = (name: string): Found => {
  const candidates = candidatesFor(name)
  const [declaration] = candidates
  if (declaration === undefined || candidates.length > 1) {
    const files = candidates.map((node) => node.getSourceFile().fileName)
    throw new Error(`"${name}" should be exported once by the sources, and is by ${files.join() || "none of them"}`)
  }
  const reached = [declaration]
  for (const each of reached) {
    for (const node of nodesIn(each)) {
      const meant = meantBy(node)
      if (meant === undefined || !isFunction(meant)) continue
      const isKnown = reached.some((other) => ts.findAncestor(meant, (outer) => outer === other) !== undefined)
      if (!isKnown) reached.push(meant)
    }
  }
  return { declaration, reached }
}

// -----------------------------------------------------------------------------
// Places
// -----------------------------------------------------------------------------

/** Selects the places of a change. */
export type Where = (node: ts.Node) => boolean

const places = ({ reached }: Found, where: Where): ReadonlyArray<ts.Node> =>
  reached.flatMap((each) => nodesIn(each).filter(where))

/** A call of this function. */
export const calling =
  (name: string): Where =>
  (node) =>
    ts.isCallExpression(node) && (node.expression.getText() === name || node.expression.getText().endsWith(`.${name}`))

/** A call with this argument. */
export const giving =
  (argument: string): Where =>
  (node) =>
    ts.isCallExpression(node) && node.arguments.some((each) => each.getText() === argument)

const inside = (node: ts.Expression): ts.Expression =>
  ts.isParenthesizedExpression(node) ? inside(node.expression) : node

/** An operation with this operator and, if given, such operands. */
export const operating =
  (operator: string, left: Where = () => true, right: Where = () => true): Where =>
  (node) =>
    ts.isBinaryExpression(node) &&
    node.operatorToken.getText() === operator &&
    left(inside(node.left)) &&
    right(inside(node.right))

/** An expression with this text, such as a literal or the member `priority`. */
export const saying =
  (text: string): Where =>
  (node) =>
    node.getText() === text || (ts.isPropertyAccessExpression(node) && node.name.text === text)

/** A part of such an operation or call. */
export const partOf =
  (where: Where): Where =>
  (node) =>
    where(node.parent)

/** What a decision may return: an `if` that returns at once, or a conditional expression. */
const returned = (node: ts.Node): ReadonlyArray<string> => {
  if (ts.isConditionalExpression(node)) return [node.whenTrue.getText()]
  if (!ts.isIfStatement(node)) return []
  const { thenStatement } = node
  const last = ts.isBlock(thenStatement) ? thenStatement.statements.at(-1) : thenStatement
  return last !== undefined && ts.isReturnStatement(last) ? valuesOf(last.expression) : []
}

const valuesOf = (node: ts.Expression | undefined): ReadonlyArray<string> =>
  node !== undefined && ts.isConditionalExpression(node)
    ? [...valuesOf(node.whenTrue), ...valuesOf(node.whenFalse)]
    : [node?.getText() ?? ""]

/** A decision that returns this literal, or a call of this function, if need be after a second decision. */
export const returning =
  (value: string): Where =>
  (node) =>
    returned(node).some((text) => text === value || text.startsWith(`${value}(`))

/** A decision whose first branch contains such a node. */
export const leading =
  (where: Where): Where =>
  (node) =>
    ts.isIfStatement(node) && nodesIn(node.thenStatement).some(where)

/** Any decision, or one whose condition contains this name. */
export const deciding =
  (name?: string): Where =>
  (node) =>
    (ts.isIfStatement(node) || ts.isConditionalExpression(node)) &&
    (name === undefined || nodesIn(conditionOf(node)).some((each) => ts.isIdentifier(each) && each.text === name))

const conditionOf = (node: ts.Node): ts.Expression =>
  ts.isIfStatement(node) ? node.expression : (node as ts.ConditionalExpression).condition

// -----------------------------------------------------------------------------
// Changes
// -----------------------------------------------------------------------------

const each =
  (where: Where, edit: (node: ts.Node) => Edit): Change =>
  (found) =>
    places(found, where).map((node) => [edit(node)])

const decided =
  (where: Where, as: boolean): Change =>
  (found) =>
    places(found, where).map((node) => {
      const condition = conditionOf(node)
      // The condition is still evaluated; only its result differs.
      return [{ node: condition, text: `[${condition.getText()}, ${as}].at(-1)` }]
    })

/** Makes a decision never apply. */
export const never = (where: Where): Change => decided(where, false)

/** Makes a decision always apply. */
export const always = (where: Where): Change => decided(where, true)

/** Removes a statement that consists of such an expression. */
export const dropped = (where: Where): Change =>
  each(
    (node) => ts.isExpressionStatement(node) && where(node.expression),
    (node) => ({ node, text: ";" })
  )

/** Passes the value of an expression through a function, which must not use any outer name. */
export const through = (where: Where, change: (value: never) => unknown): Change =>
  each(where, (node) => ({ node, text: `((${change.toString()})(${node.getText()}))` }))

/** Empties a `catch`. */
export const silenced: Change = each(ts.isCatchClause, (node) => ({ node, text: "catch {}" }))

/** Removes the `catch` of a `try`. */
export const unguarded: Change = each(ts.isTryStatement, (node) => ({
  node,
  text: (node as ts.TryStatement).tryBlock.getText()
}))

/** Replaces a function, a method or a class by what `make` returns for it; `make` must not use any outer name. */
export const instead =
  (make: (original: never, self: never) => unknown): Change =>
  ({ declaration }) => {
    const code = `(${make.toString()})`
    if (ts.isVariableDeclaration(declaration)) {
      const { initializer } = declaration
      return [[{ node: initializer!, text: `${code}(${initializer!.getText()})` }]]
    }
    const text = declaration.getText()
    if (ts.isClassDeclaration(declaration)) {
      const name = declaration.name!.text
      return [
        [{ node: declaration, text: text.replace("export class", () => `export const ${name} = ${code}(class`) + ")" }]
      ]
    }
    if (!ts.isMethodDeclaration(declaration)) throw new Error(`this cannot be replaced: ${text}`)
    const name = declaration.name.getText()
    const original = `(...own: Array<any>) => (this as any).${name}$original(...own)`
    const replaced = `${name}(...args: Array<any>): any { return ${code}(${original}, this)(...args) }`
    return [[{ node: declaration, text: `${replaced}\n${text.replace(name, () => `${name}$original`)}` }]]
  }

// -----------------------------------------------------------------------------
// Copies
// -----------------------------------------------------------------------------

/** Imports a module from the copy. */
export type Import = <A>(module: string) => Effect.Effect<A>

/** A copy of the sources with a fault in one place. */
export interface Copy {
  /** Where the fault is. */
  readonly place: string
  /** Opens the copy for the duration of a scope. Imported modules stay loaded. */
  readonly open: Effect.Effect<Import, never, Scope.Scope>
}

const open = (edits: ReadonlyArray<Edit>): Copy["open"] =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "floodgate-fault-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )
    cpSync(join(root, "src"), join(folder, "src"), { recursive: true })
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
    for (const { node, text } of edits) {
      const path = join(folder, node.getSourceFile().fileName)
      const before = readFileSync(path, "utf8")
      writeFileSync(path, before.slice(0, node.getStart()) + text + before.slice(node.end))
    }
    return (module) => Effect.promise(() => import(pathToFileURL(join(folder, "src", module)).href))
  })

/** The copies with a fault, one for each place that fits. Throws if no place fits. */
export const copies = (fault: Fault): ReadonlyArray<Copy> => {
  const found = fault.by(find(fault.in))
  if (found.length === 0) throw new Error(`"${fault.in}" has no place for a fault without ${fault.without}`)
  return found.map((edits) => {
    const [{ node }] = edits as [Edit]
    const source = node.getSourceFile()
    const { line } = source.getLineAndCharacterOfPosition(node.getStart())
    return { place: `${source.fileName}:${line + 1}: ${node.getText().split("\n")[0]}`, open: open(edits) }
  })
}

/** Requires that a check notices a fault in one of the copies: it returns `undefined` if so, and otherwise what it saw. */
export const notices = (
  fault: Fault,
  check: (take: Import) => Effect.Effect<string | undefined, never, Scope.Scope>
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const said: Array<string> = []
    for (const { open, place } of copies(fault)) {
      const problem = yield* Effect.scoped(Effect.flatMap(open, check))
      if (problem === undefined) return
      said.push(`${place}\n  ${problem}`)
    }
    return yield* Effect.die(new Error(`nothing notices a copy without ${fault.without}:\n${said.join("\n")}`))
  })
