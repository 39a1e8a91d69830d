import asyncpg, pytest, aiohttp
@pytest.mark.parametrize("n", range(5))
async def test_a(db, n):
    assert await db.fetchval("select count(*) from partner_center.referrals") == 0
    await db.execute("create table x()")
async def test_d(simulator):
    assert not (await simulator.state())["referrals"]
    assert (await simulator.behaviour())["page_size"] != 3
