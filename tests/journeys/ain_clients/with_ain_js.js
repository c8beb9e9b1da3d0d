// A developer's day with ain-js against a node: runs with the client's own packages and prints a line for each check.
//
//     NODE_PATH=…/node_modules node with_ain_js.js NODE_URL EVENT_URL NODE_ADDRESS KEY OTHER_KEY

'use strict';

const Ain = require('@ainblockchain/ain-js').default;
const { isDeepStrictEqual } = require('util');
const { version } = require('@ainblockchain/ain-js/package.json');

const FINAL_MS_MAX = 60000;
const EVENT_MS_MAX = 60000;
const MNEMONIC =
  'abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about';
let checks = 0;

function check(name, isGood, seen) {
  checks += 1;
  const text = JSON.stringify(seen === undefined ? null : seen) || '';
  console.log(JSON.stringify({ check: name, ok: Boolean(isGood), seen: text.slice(0, 300) }));
}

function equal(name, seen, wanted) {
  check(name, isDeepStrictEqual(seen, wanted), seen);
}

async function refused(name, act, code) {
  try {
    check(name, false, await act());
  } catch (error) {
    check(name, error.code === code, `${error.code}: ${error.message}`);
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(what, isThere, msMax = EVENT_MS_MAX) {
  const deadline = Date.now() + msMax;
  while (Date.now() < deadline) {
    const found = await isThere();
    if (found) return found;
    await pause(50);
  }
  throw new Error(`${what} did not happen`);
}

function final(ain, hash) {
  return until(`${hash} is final`, async () => {
    const info = await ain.getTransactionByHash(hash);
    return info && info.is_finalized ? info : null;
  }, FINAL_MS_MAX);
}

const codeOf = (answer) => answer.result.code;

async function network(ain, nodeAddress) {
  equal('network id', await ain.net.getNetworkId(), 0);
  equal('chain id', await ain.net.getChainId(), 0);
  equal('listening', await ain.net.isListening(), true);
  equal('syncing', await ain.net.isSyncing(), false);
  const peers = await ain.net.getPeerCount();
  check('peer count', peers >= 1, peers);
  const status = await ain.net.getConsensusStatus();
  check('consensus status', status.state === 'RUNNING' && status.health === true, status);
  check('validators of the status', nodeAddress in status.validators, status.validators);
  equal('raw consensus status', (await ain.net.getRawConsensusStatus()).consensus.state, 'RUNNING');
  equal('peer candidate info', (await ain.net.getPeerCandidateInfo()).address, nodeAddress);
  equal('protocol version', await ain.net.getProtocolVersion(), '1.6.0');
  const checked = await ain.net.checkProtocolVersion();
  check('protocol version check', checked.result === true && checked.code === 0, checked);
  const events = await ain.net.getEventHandlerNetworkInfo();
  check('event handler', events.url.startsWith('ws://'), events);
  equal('address of the node', await ain.provider.getAddress(), nodeAddress);
}

async function accounts(ain, key, otherKey) {
  const me = ain.wallet.addAndSetDefaultAccount(key);
  const other = ain.wallet.add(otherKey);
  ain.wallet.create(2);
  equal('wallet length', ain.wallet.length, 4);
  const hd = ain.wallet.addFromHDWallet(MNEMONIC, 0);
  check('account of a mnemonic', ain.wallet.isAdded(hd), hd);
  const signature = ain.wallet.sign('a text', me);
  check('signature of a text', ain.wallet.verifySignature('a text', signature, me), signature);
  equal('signer of a text', ain.wallet.recover(signature), me);
  equal('balance', await ain.wallet.getBalance(), 1000000);
  equal('nonce', await ain.wallet.getNonce({}), 0);
  equal('nonce that is pending', await ain.wallet.getNonce({ from: 'pending' }), 0);
  equal('timestamp', await ain.wallet.getTimestamp({}), 0);
  equal('balance of nobody', await ain.db.ref(`/accounts/${hd}/balance`).getValue(), null);
  return [me, other];
}

async function transfers(ain, other) {
  const before = await ain.wallet.getBalance(other);
  const tried = await ain.wallet.transfer({ to: other, value: 5, nonce: -1 }, true);
  check('dry run of a transfer', codeOf(tried) === 0 && tried.result.is_dryrun === true, tried);
  equal('a dry run moves nothing', await ain.wallet.getBalance(other), before);
  const sent = await ain.wallet.transfer({ to: other, value: 12.345678, nonce: -1 });
  equal('transfer', codeOf(sent), 0);
  equal('function of a transfer', sent.result.func_results._transfer.code, 0);
  equal('balance at once', await ain.wallet.getBalance(other), before + 12.345678);
  const info = await final(ain, sent.tx_hash);
  equal('transfer is final', info.state, 'FINALIZED');
  equal('receipt of a transfer', info.receipt.code, 0);
  for (const [name, value] of [['nothing', 0], ['seven decimals', 0.1234567]]) {
    try {
      check(`transfer of ${name}`, false, await ain.wallet.transfer({ to: other, value, nonce: -1 }));
    } catch (error) {
      check(`transfer of ${name}`, true, error.message);
    }
  }
  const much = await ain.wallet.transfer({ to: other, value: 99999999, nonce: -1 });
  equal('transfer of too much', codeOf(much), 12103);
}

async function app(ain, me, other, name) {
  const fresh = await ain.validateAppName(name);
  check('free app name', fresh.is_valid === true && fresh.code === 0, fresh);
  await refused('app name with a slash', () => ain.validateAppName('app/path'), 30601);
  const created = await ain.sendTransaction({
    operation: { type: 'SET_VALUE', ref: `/manage_app/${name}/create/1`, value: { admin: { [me]: true } } },
    nonce: -1,
  });
  equal('app', codeOf(created), 0);
  equal('function of an app', created.result.func_results._createApp.code, 0);
  await final(ain, created.tx_hash);
  await refused('app name in use', () => ain.validateAppName(name), 30603);
  const ref = ain.db.ref(`/apps/${name}`);
  const all = { branch_owner: true, write_function: true, write_owner: true, write_rule: true };
  const owner = { '.owner': { owners: { [me]: all } } };
  const tried = await ref.setOwner({ value: owner, nonce: -1 }, true);
  check('dry run of an owner', tried.result.is_dryrun === true && codeOf(tried) === 0, tried);
  equal('owner', codeOf(await ref.setOwner({ value: owner, nonce: -1 })), 0);
  const rule = { '.rule': { write: `auth.addr === '${me}'` } };
  equal('rule', codeOf(await ref.setRule({ ref: 'data', value: rule, nonce: -1 })), 0);
  const url = 'https://events.ainetwork.ai/trigger';
  const entry = { function_type: 'REST', function_id: '0xf', function_url: url };
  const fn = { '.function': { '0xf': entry } };
  equal('function', codeOf(await ref.setFunction({ ref: 'data/fn', value: fn, nonce: -1 })), 0);
  equal('owner as read', await ref.getOwner(), owner);
  equal('rule as read', await ref.getRule('data'), rule);
  equal('function as read', await ref.getFunction('data/fn'), fn);
  await values(ain, name);
  await permissions(ain, me, other, name);
  const denied = await ain.sendTransaction({
    operation: { type: 'SET_VALUE', ref: `/apps/${name}/data/a`, value: 'hacked' }, address: other, nonce: -1,
  });
  equal('a rule denies', codeOf(denied), 12103);
  equal('what was denied is reverted', (await final(ain, denied.tx_hash)).state, 'REVERTED');
  const owned = await ain.sendTransaction({
    operation: { type: 'SET_OWNER', ref: `/apps/${name}`, value: owner }, address: other, nonce: -1,
  });
  equal('an owner denies', codeOf(owned), 12502);
}

async function values(ain, name) {
  const ref = ain.db.ref(`/apps/${name}/data`);
  const text = { s: 'text', n: 1.5, b: true, o: { k: 'v' }, u: '한글 🙂', small: 0.000001 };
  const nonce = await ain.wallet.getNonce({ from: 'pending' });
  equal('value', codeOf(await ref.setValue({ ref: 'a', value: text })), 0);
  equal('nonce goes on', await ain.wallet.getNonce({ from: 'pending' }), nonce + 1);
  equal('value as read', await ref.getValue('a'), text);
  equal('increment', codeOf(await ref.incrementValue({ ref: 'n', value: 5 })), 0);
  equal('decrement', codeOf(await ref.decrementValue({ ref: 'n', value: 2 })), 0);
  equal('counter as read', await ref.getValue('n'), 3);
  const several = await ref.set({
    op_list: [{ type: 'SET_VALUE', ref: 'x', value: 1 }, { type: 'INC_VALUE', ref: 'n', value: 1 }], nonce: -1,
  });
  equal('several operations', Object.values(several.result.result_list).map((one) => one.code), [0, 0]);
  const pushed = await ref.push('pushed');
  equal('push', codeOf(pushed), 0);
  equal('delete', codeOf(await ref.deleteValue({ ref: 'x', nonce: -1 })), 0);
  equal('deleted as read', await ref.getValue('x'), null);
  const shallow = await ain.db.ref(`/apps/${name}`).getValue('', { is_shallow: true });
  check('shallow read', '#state_ph' in shallow.data, shallow);
  const proven = await ref.getValue('a', { include_proof: true, include_tree_info: true });
  check('read with hashes', '#state_ph:s' in proven && proven['#tree_size:s'] === 1, proven);
  const page = await ref.getValue('', { is_partial: true });
  check('a page of a read', page['#end_label'] && '#serial' in page.a, page);
  const behind = await ref.getValue('', { is_partial: true, last_end_label: page['#end_label'] });
  equal('behind the last page', behind, { '#end_label': null });
  await final(ain, pushed.tx_hash);
  equal('final read', await ref.getValue('n', { is_final: true }), 4);
  const listed = await ref.get([{ type: 'GET_VALUE', ref: 'n' }, { type: 'GET_RULE', ref: '' }]);
  check('several reads', listed[0] === 4 && '.rule' in listed[1], listed);
  await refused('no reads', () => ref.get([]), 30006);
}

async function permissions(ain, me, other, name) {
  const ref = ain.db.ref(`/apps/${name}/data`);
  const mine = await ref.evalRule({ ref: 'a', value: 1, address: me });
  const theirs = await ref.evalRule({ ref: 'a', value: 1, address: other });
  equal('rule for me and others', [mine.code, theirs.code], [0, 12103]);
  const owned = await ref.evalOwner({ ref: '', permission: 'write_rule', address: me });
  const foreign = await ref.evalOwner({ ref: '', permission: 'write_rule', address: other });
  equal('owner for me and others', [owned.code, foreign.code], [0, 12302]);
  const fn = await ref.matchFunction({ ref: 'fn' });
  equal('function that matches', Object.keys(fn.matched_config.config), ['0xf']);
  const rule = await ref.matchRule({ ref: 'a/b' });
  equal('rule that matches', rule.write.matched_config.path, `/apps/${name}/data`);
  equal('owner that matches', (await ref.matchOwner({ ref: 'a/b' })).matched_config.path, `/apps/${name}`);
  const full = { ref: `/values/apps/${name}/data/a` };
  const root = ain.db.ref();
  const info = await root.getStateInfo(full);
  const proofHash = await root.getProofHash(full);
  equal('proof hash', info['#state_ph'], proofHash);
  const proof = await root.getStateProof(full);
  check('state proof', JSON.stringify(proof).includes(proofHash) && '#state_ph' in proof, proof);
  equal('proof of nothing', await root.getStateProof({ ref: '/values/apps/none' }), null);
  const usage = await ain.getStateUsage(name);
  check('state usage', usage.usage.tree_bytes > 0 && usage.staking.app === 0, usage);
}

async function batches(ain, name) {
  const listed = await ain.sendTransactionBatch([0, 1, 2].map((index) => (
    { operation: { type: 'SET_VALUE', ref: `/apps/${name}/data/batch/${index}`, value: index } }
  )));
  equal('batch', listed.map(codeOf), [0, 0, 0]);
  await refused('empty batch', () => ain.sendTransactionBatch([]), 30401);
  const body = {
    operation: { type: 'SET_VALUE', ref: `/apps/${name}/data/signed`, value: 'by hand' },
    nonce: -1, timestamp: Date.now(), gas_price: 0,
  };
  const signature = ain.wallet.signTransaction(body);
  const sent = await ain.sendSignedTransaction(signature, body);
  check('transaction signed before', codeOf(sent) === 0 && sent.tx_hash === signature.slice(0, 66), sent);
  const otherBody = { ...body, timestamp: body.timestamp + 1 };
  await refused('wrong signature', () => ain.sendSignedTransaction(signature, otherBody), 30304);
  equal('the same transaction again', codeOf(await ain.sendSignedTransaction(signature, body)), 10701);
  const future = await ain.sendTransaction({
    operation: { type: 'SET_VALUE', ref: `/apps/${name}/data/a`, value: 1 }, nonce: 9999,
  });
  equal('nonce of the future', codeOf(future), 10712);
  for (const one of listed) await final(ain, one.tx_hash);
  check('batch is final', true);
}

async function staking(ain, me, name) {
  const stake = (verb, value) => ain.sendTransaction({
    operation: { type: 'SET_VALUE', ref: `/staking/${name}/${me}/0/${verb}/${Date.now()}/value`, value }, nonce: -1,
  });
  const sent = await stake('stake', 50);
  equal('stake', codeOf(sent), 0);
  equal('function of a stake', sent.result.func_results._stake.code, 0);
  const account = ain.db.ref(`/service_accounts/staking/${name}/${me}|0/balance`);
  equal('staked balance', await account.getValue(), 50);
  equal('stake of the app', (await ain.getStateUsage(name)).staking.app, 50);
  await final(ain, sent.tx_hash);
  equal('part of a stake comes back', codeOf(await stake('unstake', 20)), 0);
  equal('balance that stays staked', await account.getValue(), 30);
}

async function blocks(ain, nodeAddress, me, other) {
  let sent, pending, used;
  const deadline = Date.now() + FINAL_MS_MAX;
  do {
    // On a machine that stood still meanwhile it may be final already.
    sent = await ain.wallet.transfer({ to: other, value: 1, nonce: -1 });
    pending = await ain.getPendingTransactions();
    used = await ain.getTransactionPoolSizeUtilization();
  } while (!(me in pending && used.used >= 1) && Date.now() < deadline);
  check('pending transactions', me in pending && Array.isArray(pending[me][0]), Object.keys(pending));
  check('pool utilization', used.limit === 1000 && used.used >= 1, used);
  const { number, index } = await final(ain, sent.tx_hash);
  const block = await ain.getBlockByNumber(number, true);
  equal('transaction in its block', block.transactions[index].hash, sent.tx_hash);
  equal('block with hashes', (await ain.getBlockByNumber(number)).transactions[index], sent.tx_hash);
  equal('block by hash', (await ain.getBlockByHash(block.hash, true)).number, number);
  equal('unknown block', await ain.getBlockByHash(`0x${'0'.repeat(64)}`), null);
  const byNumber = await ain.getTransactionByBlockNumberAndIndex(number, index);
  equal('transaction by number and index', byNumber.transaction.hash, sent.tx_hash);
  const byHash = await ain.getTransactionByBlockHashAndIndex(block.hash, index);
  equal('transaction by hash and index', byHash.transaction.hash, sent.tx_hash);
  equal('unknown transaction', await ain.getTransactionByHash(`0x${'0'.repeat(64)}`), null);
  const count = block.transactions.length;
  equal('count by number', await ain.getBlockTransactionCountByNumber(number), count);
  equal('count by hash', await ain.getBlockTransactionCountByHash(block.hash), count);
  equal('validators by number', await ain.getValidatorsByNumber(number), block.validators);
  equal('validators by hash', await ain.getValidatorsByHash(block.hash), block.validators);
  equal('proposer by number', await ain.getProposerByNumber(number), block.proposer);
  equal('proposer by hash', await ain.getProposerByHash(block.hash), block.proposer);
  const listed = await ain.getBlockList(number - 1, number + 1);
  equal('list of blocks', listed.map((one) => one.number), [number - 1, number]);
  equal('chain of blocks', listed[1].last_hash, listed[0].hash);
  const headers = await ain.getBlockHeadersList(number - 1, number + 1);
  check('list of headers', headers.length === 2 && !('transactions' in headers[1]), headers);
  const validator = await ain.getValidatorInfo(nodeAddress);
  check('validator', validator.isWhitelisted === true && validator.stake > 0, validator);
  const last = await ain.getLastBlock();
  check('last block', last.number >= number, last.number);
  check('last block number', (await ain.getLastBlockNumber()) >= last.number);
}

async function events(ain, me, name) {
  const heard = { blocks: [], values: [], states: [], deleted: [], errors: [] };
  await ain.em.connect(() => {}, () => {}, 'journey');
  check('event channel', ain.em.isConnected());
  equal('custom id of a client', ain.em.getCustomClientId(), 'journey');
  const blocksFilter = ain.em.subscribe(
    'BLOCK_FINALIZED', { block_number: null }, (event) => heard.blocks.push(event), (error) => heard.errors.push(error));
  ain.em.subscribe(
    'VALUE_CHANGED', { path: `/apps/${name}/data/$key`, event_source: null },
    (event) => heard.values.push(event), (error) => heard.errors.push(error));
  const body = {
    operation: { type: 'SET_VALUE', ref: `/apps/${name}/data/watched`, value: { hot: 1 } },
    nonce: -1, timestamp: Date.now(), gas_price: 0,
  };
  const signature = ain.wallet.signTransaction(body);
  ain.em.subscribe(
    'TX_STATE_CHANGED', { tx_hash: signature.slice(0, 66) }, (event) => heard.states.push(event),
    (error) => heard.errors.push(error), (event) => heard.deleted.push(event));
  await until('a block event', () => heard.blocks.length > 0);
  check('event of a block', heard.blocks[0].block_number > 0 && heard.blocks[0].block_hash.length === 66, heard.blocks[0]);
  equal('event of a block fits', (await ain.getBlockByNumber(heard.blocks[0].block_number)).hash, heard.blocks[0].block_hash);
  await ain.sendSignedTransaction(signature, body);
  await until('the end of a transaction', () => heard.deleted.length > 0);
  const states = heard.states.map((event) => [event.tx_state.before, event.tx_state.after]);
  equal('states of a transaction', states, [[null, 'EXECUTED'], ['EXECUTED', 'IN_BLOCK'], ['IN_BLOCK', 'FINALIZED']]);
  equal('end of a filter', heard.deleted[0].reason, 'END_STATE_REACHED');
  await until('both events of a value', () => heard.values.length >= 2);
  equal('sources of a value', heard.values.map((event) => event.event_source), ['USER', 'BLOCK']);
  equal('variables of a path', heard.values[0].params, { key: 'watched' });
  equal('value before and after', heard.values[0].values, { before: null, after: { hot: 1 } });
  equal('who wrote a value', heard.values[0].auth, { addr: me });
  ain.em.subscribe('VALUE_CHANGED', { path: '/a.b/c', event_source: null }, () => {}, (error) => heard.errors.push(error));
  await until('a refusal', () => heard.errors.length > 0);
  equal('refusal of a filter', heard.errors[0].code, 70020);
  await new Promise((resolve) => ain.em.unsubscribe(blocksFilter, (error) => {
    check('unsubscribe', !error, error && error.message);
    resolve();
  }));
  const countBefore = heard.blocks.length;
  const number = await ain.getLastBlockNumber();
  await until('two more blocks', async () => (await ain.getLastBlockNumber()) >= number + 2);
  check('no events after that', heard.blocks.length <= countBefore + 1, heard.blocks.length - countBefore);
  ain.em.disconnect();
  await until('the end of the channel', () => !ain.em.isConnected());
  check('disconnect', !ain.em.isConnected());
}

async function raw(url) {
  const ain = new Ain(url, null, 0, { rawResultMode: true });
  equal('raw answer', await ain.net.getChainId(), { result: 0, protoVer: '1.6.0' });
  equal('raw answer without a result', await ain.getBlockByNumber(-1), { protoVer: '1.6.0' });
  equal('raw refusal', (await ain.validateAppName('app/path')).code, 30601);
}

async function day(url, eventUrl, nodeAddress, key, otherKey) {
  const ain = new Ain(url, eventUrl);
  const name = 'js_app';
  await network(ain, nodeAddress);
  const [me, other] = await accounts(ain, key, otherKey);
  await transfers(ain, other);
  await app(ain, me, other, name);
  await batches(ain, name);
  await staking(ain, me, name);
  await blocks(ain, nodeAddress, me, other);
  await events(ain, me, name);
  await raw(url);
  console.log(JSON.stringify({ client: 'ain-js', version, checks }));
}

day(...process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
