import asyncpg, pytest, aiohttp
@pytest.mark.parametrize("n", range(5))
async def test_a(db, n):
    assert await db.fetchval("select count(*) from partner_center.referrals") == 0
    await db.execute("create table x()")
async def test_b(empty_database_url):
    c = await asyncpg.connect(empty_database_url); print(await c.fetch("select nspname from pg_namespace"));  await c.close()
async def test_c(simulator):
    await simulator.create([{}]); await simulator.behaviour(page_size=3)
async def test_d(simulator):
    assert not (await simulator.state())["referrals"]
    assert (await simulator.behaviour())["page_size"] != 3
def test_sync(database_url): assert database_url
